"""The suite of `helix_deploy.testing`, which other packages' providers pass as well as ours."""

from helix_deploy.testing import Driver, Killed, ProviderSuite, Result, World

__all__ = ["Driver", "Killed", "ProviderSuite", "Result", "World"]
