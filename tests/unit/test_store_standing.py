"""Is it the backup folder that was set up?"""

import pytest

from vm_babysitter.domain.store_standing import FoundStore, Standing, standing, why_not

FS = "xfs /dev/md1 at /mnt/disk1"
RAM = "rootfs rootfs at /"
GONE = FoundStore(there=False)


@pytest.mark.parametrize(
    ("known", "found", "expected"),
    [
        (("", ""), GONE, Standing.AWAY),
        (("", ""), FoundStore(there=True, filesystem=FS), Standing.NEW),
        (("", ""), FoundStore(there=True, id="a", filesystem=FS), Standing.RIGHT),
        (("a", FS), FoundStore(there=True, id="a", filesystem=FS), Standing.RIGHT),
        # A disk that has another name after a restart: the mark tells.
        (("a", FS), FoundStore(there=True, id="a", filesystem=RAM), Standing.RIGHT),
        (("a", FS), FoundStore(there=True, id="b", filesystem=FS), Standing.OTHER),
        (("a", FS), FoundStore(there=True, filesystem=FS), Standing.RENEWED),
        (("a", FS), FoundStore(there=True, filesystem=RAM), Standing.AWAY),
        (("a", FS), GONE, Standing.AWAY),
        # It was emptied, and its disk is not mounted now.
        (("", FS), FoundStore(there=True, filesystem=RAM), Standing.AWAY),
        (("", FS), FoundStore(there=True, filesystem=FS), Standing.NEW),
        (("", FS), FoundStore(there=True, id="b", filesystem=FS), Standing.RIGHT),
    ],
)
def test_by_what_was_noted(known: tuple[str, str], found: FoundStore, expected: Standing) -> None:
    assert standing(*known, found) is expected


@pytest.mark.parametrize("found", Standing)
def test_backups_wait_for_what_is_away_or_another(found: Standing) -> None:
    assert bool(why_not(found, "/b")) == (found in {Standing.AWAY, Standing.OTHER})
