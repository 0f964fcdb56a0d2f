"""What can be wrong between us and Temporal. The command line ends with code 6 on both."""

from __future__ import annotations

from model.errors import HelixError


class Unreachable(HelixError):
    """Temporal does not answer, or refuses us."""

    code = "Unreachable"
    hint_default = "run: helix doctor"


class NoWorker(HelixError):
    """Temporal answers, but nobody takes deployments from the task queue."""

    code = "NoWorker"
    hint_default = "start one: helix worker"
