"""One suite for every provider, and one for every registry, with each kind's own tests beside it."""

import pytest

pytest.register_assert_rewrite("tests.contract.provider_suite")
