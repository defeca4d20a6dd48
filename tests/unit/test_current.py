"""What is noted of a VM that is off, and when it counts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.points import attempt, chain, damaged, line
from vm_babysitter.domain.chain import Chain, UnreadablePoint
from vm_babysitter.domain.offline import Current, Evidence, Stamp, is_same, is_settled

NOW = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
SECOND = 10**9
THEN = int(NOW.timestamp()) * SECOND - 3600 * SECOND
STAMP = Stamp("/vms/a.img", 1, 2, 3, THEN, THEN)
BASE = replace(STAMP, path="/vms/base.img", inode=5)
EVIDENCE = Evidence({"vda": (STAMP, BASE)}, "beside")
POINTS = line(2)
NOTED = Current(1, POINTS[1].nonce, NOW, EVIDENCE)


def noted(found: Chain, current: Current | None = NOTED) -> Chain:
    return replace(found, noted=current)


def test_a_note_counts_for_the_newest_point_as_long_as_nothing_newer_was_begun() -> None:
    assert noted(chain(*POINTS)).current == NOTED
    assert chain(*POINTS).current is None
    assert noted(chain()).current is None


@pytest.mark.parametrize(
    "found",
    [
        noted(chain(*line(3))),
        noted(chain(*line(2), damaged(line(3)[2]))),
        noted(replace(chain(*POINTS), attempts=(attempt(2),))),
        noted(replace(chain(*POINTS), unreadable=(UnreadablePoint(2, "000002-inc", "x"),))),
        noted(chain(POINTS[0], damaged(POINTS[1], "vda.index"))),
        noted(chain(*POINTS), replace(NOTED, nonce="ffffff")),
        noted(chain(*POINTS), replace(NOTED, seq=0)),
    ],
)
def test_else_it_does_not(found: Chain) -> None:
    assert found.current is None


@pytest.mark.parametrize(
    "stamp",
    [
        replace(STAMP, device=9),
        replace(STAMP, inode=9),
        replace(STAMP, size=9),
        replace(STAMP, modified=9),
        replace(STAMP, changed=9),
        replace(STAMP, telling=False),
    ],
)
def test_any_stamp_that_differs_is_a_change(stamp: Stamp) -> None:
    paths = {"vda": STAMP.path}
    assert is_same(EVIDENCE, paths, EVIDENCE)
    for stamps in ((stamp, BASE), (STAMP, replace(stamp, path=BASE.path))):
        assert not is_same(EVIDENCE, paths, replace(EVIDENCE, disks={"vda": stamps}))


@pytest.mark.parametrize("paths", [{}, {"vda": BASE.path}, {"vda": "/x"}, {"vdb": STAMP.path}])
def test_so_is_a_disk_that_leads_to_another_image_or_is_gone(paths: dict[str, str]) -> None:
    assert not is_same(EVIDENCE, paths, EVIDENCE)


def test_so_is_anything_beside_the_disks() -> None:
    assert not is_same(EVIDENCE, {"vda": STAMP.path}, replace(EVIDENCE, beside="other"))


@pytest.mark.parametrize("field", ["modified", "changed"])
@pytest.mark.parametrize(("seconds", "settled"), [(1, False), (2, False), (3, True), (-60, False)])
def test_what_changed_just_now_may_change_again_unseen(
    field: str, seconds: int, settled: bool
) -> None:
    moment = int((NOW - timedelta(seconds=seconds)).timestamp()) * SECOND
    stamp = {"modified": replace(STAMP, modified=moment), "changed": replace(STAMP, changed=moment)}
    assert is_settled(Evidence({"vda": (BASE, stamp[field])}, ""), NOW) is settled


def test_what_does_not_tell_is_never_settled() -> None:
    assert is_settled(EVIDENCE, NOW)
    silent = replace(STAMP, telling=False)
    assert not is_settled(Evidence({"vda": (STAMP, silent)}, ""), NOW)
