"""What is said of checkpoints and bitmaps that are not ours."""

import pytest

from tests.support.points import attempt, bitmap_of, chain, disk_state, good, line
from vm_babysitter.domain.foreign import foreign_things
from vm_babysitter.domain.vm import Bitmap

OTHER = "virtnbdbackup.0"
ALONE = "it is not of this backup folder and is left alone"
BROKEN = [Bitmap(OTHER, recording=False, inconsistent=True)]


def test_nothing_is_said_of_ours_and_everything_of_others() -> None:
    ours = chain(*line(2))
    states = [
        disk_state(good(bitmap_of(0), OTHER), good('a "b"')),
        disk_state(good(bitmap_of(1, target="vdb"), OTHER), target="vdb"),
    ]
    assert foreign_things(states, [bitmap_of(0), OTHER, "x"], [ours]) == (
        f"change tracking 'a \"b\"' on disk vda: {ALONE}",
        f"checkpoint '{OTHER}' on disks vda, vdb: {ALONE}",
        f"checkpoint 'x', whose change tracking is gone: {ALONE}",
    )


def test_what_another_backup_folder_of_ours_made_is_foreign_to_this_one() -> None:
    states = [disk_state(good(bitmap_of(0)))]
    (said,) = foreign_things(states, [], [])
    assert bitmap_of(0) in said


@pytest.mark.parametrize("below", [False, True])
def test_damaged_ones_are_told_for_what_they_forbid(below: bool) -> None:
    layers = (good(OTHER), BROKEN) if below else (BROKEN, good(OTHER))
    (said,) = foreign_things([disk_state(*layers)], [], [])
    assert ALONE in said
    assert "it is damaged" in said
    assert "resizes" in said


def test_an_attempt_is_not_foreign() -> None:
    mark = attempt()
    states = [disk_state(good(f"{mark.checkpoint}-vda"))]
    assert foreign_things(states, [], [chain()]) == ()
