"""What happened to a VM and its host since a backup, told from two looks."""

from dataclasses import replace

import pytest

from tests.support.points import BEGAN
from vm_babysitter.domain.presence import Seen, Since, since

SEEN = Seen("tower", "Tower", "boot 1", "run 1", BEGAN)


@pytest.mark.parametrize(
    ("old", "new", "attempt", "damaged", "expected"),
    [
        ({}, {}, False, False, Since.SAME_RUN),
        ({}, {"started": "run 2"}, False, False, Since.VM_RESTARTED),
        ({}, {"started": ""}, False, False, Since.VM_RESTARTED),
        ({"started": ""}, {}, False, False, Since.VM_RESTARTED),
        ({"started": ""}, {"started": ""}, False, False, Since.SAME_RUN),
        ({}, {"boot_id": "boot 2"}, False, False, Since.HOST_RESTARTED),
        ({}, {"boot_id": "boot 2", "started": "run 2"}, False, False, Since.HOST_RESTARTED),
        ({}, {"boot_id": "boot 2"}, False, True, Since.WENT_DOWN_HARD),
        ({}, {"boot_id": "boot 2"}, True, False, Since.WENT_DOWN_HARD),
        ({}, {}, False, True, Since.SAME_RUN),  # QEMU was killed, the host ran on
        ({}, {}, True, False, Since.WENT_DOWN_HARD),
        ({}, {"host": "other", "boot_id": "boot 2"}, False, False, Since.ANOTHER_HOST),
        ({}, {"host": "other", "boot_id": "boot 2"}, False, True, Since.ANOTHER_HOST),
        ({}, {"host": "other", "boot_id": "boot 2"}, True, False, Since.WENT_DOWN_HARD),
        ({"crashed": True}, {}, False, False, Since.WENT_DOWN_HARD),
        ({"boot_id": ""}, {}, False, True, Since.UNKNOWN),
        ({}, {"boot_id": ""}, False, True, Since.UNKNOWN),
        (None, {}, False, True, Since.UNKNOWN),
        (None, {}, True, False, Since.WENT_DOWN_HARD),
    ],
)
def test_what_happened_since(
    old: dict[str, str] | None,
    new: dict[str, str],
    attempt: bool,
    damaged: bool,
    expected: Since,
) -> None:
    before = None if old is None else replace(SEEN, **old)  # type: ignore[arg-type]
    after = replace(SEEN, **new)  # type: ignore[arg-type]
    found = since(before, after, attempt_of_other_boot=attempt, tracking_damaged=damaged)
    assert found is expected


def test_each_answer_is_a_sentence_of_its_own() -> None:
    words = [str(answer) for answer in Since]
    assert len(set(words)) == 6
    assert all(word.endswith(".") for word in words)
