"""The real command on a real machine."""

import pytest

pytest.register_assert_rewrite("tests.e2e.kind_suite")
