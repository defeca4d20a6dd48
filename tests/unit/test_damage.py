"""What a verify found wrong with a point is remembered until it is disproved."""

from datetime import UTC, datetime

import pytest

from vm_babysitter.domain.chain import Flaw
from vm_babysitter.domain.damage import Checked, remembered

NOW = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
IMAGE = Flaw("vda.qcow2", "its content is not what was written", NOW)
OTHER = Flaw("vdb.qcow2", "its content is not what was written", NOW)
CONTENT = Flaw("vda.qcow2", "the content at byte 0 is not what was backed up", NOW, content=True)
LATER = Flaw("vda.qcow2", "Input/output error", NOW)


@pytest.mark.parametrize(
    ("old", "checked", "expected"),
    [
        ([], Checked((IMAGE,)), (IMAGE,)),
        ([IMAGE], Checked((LATER,)), (LATER,)),
        ([IMAGE], Checked(()), ()),
        ([IMAGE], Checked((OTHER,)), (OTHER,)),
        ([IMAGE], Checked((OTHER,), frozenset({"vda.qcow2"})), (OTHER, IMAGE)),
        ([IMAGE], Checked((), frozenset({"vda.qcow2"})), (IMAGE,)),
        ([CONTENT], Checked(()), (CONTENT,)),
        ([CONTENT], Checked((), proven=True), ()),
        ([CONTENT], Checked((IMAGE,)), (IMAGE,)),
    ],
    ids=[
        "new",
        "found again",
        "disproved",
        "disproved, another one is damaged",
        "undecided, another one is damaged",
        "undecided",
        "the disk was not read again",
        "the disk was read again",
        "more is wrong",
    ],
)
def test_a_flaw_stays_until_it_is_found_again_or_disproved(
    old: list[Flaw], checked: Checked, expected: tuple[Flaw, ...]
) -> None:
    assert remembered(old, checked) == expected
