"""The suite that every provider passes, for kinds outside this repository too. Needs pytest.

from helix_deploy.testing import ProviderSuite, World

class TestMine(ProviderSuite):
    @pytest.fixture
    def world(self) -> Iterator[World]: ...
"""

import pytest

pytest.register_assert_rewrite("helix_deploy.testing.suite")

from helix_deploy.testing.drive import Driver, Result  # noqa: E402 - after the line above
from helix_deploy.testing.suite import Killed, ProviderSuite, World  # noqa: E402

__all__ = ["Driver", "Killed", "ProviderSuite", "Result", "World"]
