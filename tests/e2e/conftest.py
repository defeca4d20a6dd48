"""The end-to-end tests judge with helpers whose assertions must be as telling as their own."""

import pytest

pytest.register_assert_rewrite("tests.support.world")
