"""Least permissions on Google Cloud: the page's role has what is called, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import HelixError
from model.instance import ObjectStorage
from providers.gcp import NEEDED
from providers.gcp_api import Api
from providers.gcp_bucket import GcsBucket
from tests.contract import test_gcp_provider
from tests.contract.test_gcp_provider import cloud, driver, instance, provider, release
from tests.fakes.gcp import FakeGcp
from tests.fakes.gcs import fake_gcs

__all__ = ["cloud"]

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "gcp.md"
IMPLIED = {
    "run.services.getIamPolicy",
    "run.services.setIamPolicy",
    "secretmanager.versions.access",
}
"""What Google asks for besides the permission of a call: to open a service to everybody, and to
read secrets."""


def role() -> set[str]:
    """The permissions of the page's role."""
    (found,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return set(yaml.safe_load(found)["includedPermissions"])


def test_the_role_has_what_is_called_and_nothing_else(
    cloud: FakeGcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: Any, *words: Any, **more: Any) -> Any:
            called.add(next(one for one in words if isinstance(one, str) and "." in one))
            return call(self, *words, **more)

        return noted

    monkeypatch.setattr(Api, "call", noting(Api.call))
    monkeypatch.setattr(GcsBucket, "_call", noting(GcsBucket._call))
    for number, secret in enumerate(("one", "one", "another"), 1):
        monkeypatch.setattr(test_gcp_provider, "SECRET", secret)
        assert driver(cloud).deploy(release(cloud, number)).error is None
    opened = provider(instance(cloud))
    opened.preflight()
    opened.public_url()
    with suppress(HelixError):
        next(opened.logs(tail=1), None)
    current = opened.current()
    assert current is not None
    opened.prune([current])
    driver(cloud).restore(release(cloud, 4), current)
    opened.destroy(data=True)
    with fake_gcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        bucket = provider(instance(cloud, object_storage=ObjectStorage(bucket="acme"))).bucket()
        assert bucket is not None
        bucket.ensure()
        gcs.buckets["acme"].resource["labels"] = {}
        bucket.ensure()
        gcs.buckets["acme"].objects.append(("db/1", 1))
        bucket.remove()
    assert called - role() == set()
    assert role() - called - IMPLIED == set()
    assert set(NEEDED) <= role()
