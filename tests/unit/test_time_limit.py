"""What takes longer than it may is ended."""

import pytest

from vm_babysitter.domain.errors import JobTooLong
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.time_limit import within


def test_what_takes_too_long_ends_with_that_error() -> None:
    cancel = Cancel()
    with pytest.raises(JobTooLong), within(0.01, cancel):
        cancel.wait(30)


@pytest.mark.parametrize("seconds", [None, 0.02])
def test_what_is_through_in_time_is_left_alone(seconds: float | None) -> None:
    cancel = Cancel()
    with within(seconds, cancel):
        cancel.check()
    cancel.wait(0.05)
