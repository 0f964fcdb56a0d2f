"""The worker's image, built once for a whole run."""

from __future__ import annotations

from functools import cache

from scripts.setup import worker_image
from scripts.setup.shell import SetupFailed
from tests.services.need import missing


@cache
def built() -> str:
    """Its name."""
    try:
        worker_image.ensure()
    except SetupFailed as error:
        missing("engine", error.what, error.mend)
    return worker_image.name()
