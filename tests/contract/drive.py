"""The driver of `helix_deploy.testing`: a deployment as the workflow does it, without Temporal."""

from helix_deploy.testing import Driver, Result

__all__ = ["Driver", "Result"]
