"""One suite for every provider, one for every registry, each kind's own tests beside it."""

import pytest

pytest.register_assert_rewrite("tests.contract.failing_suite", "tests.contract.registry_suite")
