"""Is a place fit to hold backups: what is said of what was found there."""

from dataclasses import replace

import pytest

from tests.support.points import BEGAN
from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.store_check import Place, Trial, Verdict, judge, overall

GIB = 1 << 30
WORKS = tuple((trial, "") for trial in Trial)
GOOD = Place(
    "/mnt/disk1/vms",
    filesystem="xfs",
    mount="/mnt/disk1",
    source="/dev/md1",
    room=Room(500 * GIB, 1000 * GIB, 1),
    trials=WORKS,
    write_rate=200e6,
    read_rate=200e6,
)
LEASE = Lease("h" * 32, 'the "tower"', BEGAN)


def failing(*trials: Trial) -> tuple[tuple[Trial, str], ...]:
    return tuple((trial, "it is so" if trial in trials else "") for trial in Trial)


def test_a_good_place_is_fit_and_every_check_says_so() -> None:
    findings = judge(GOOD)
    assert overall(findings) is Verdict.OK
    assert {f.check for f in findings} == {
        "writable",
        "content",
        "filesystem",
        "rename",
        "rename-while-read",
        "fsync",
        "exclusive-create",
        "lock",
        "sparse-files",
        "big-files",
        "file-names",
        "space",
        "speed",
    }
    assert all(not finding.way_out for finding in findings)


@pytest.mark.parametrize(
    ("place", "check", "verdict", "words"),
    [
        (Place("/x", exists=False), "exists", Verdict.UNFIT, "no such folder"),
        (Place("/x", folder=False), "exists", Verdict.UNFIT, "not a folder"),
        ({"unreadable": "denied"}, "readable", Verdict.UNFIT, "cannot be read: denied"),
        ({"unwritable": "it is full"}, "writable", Verdict.UNFIT, "it is full"),
        ({"foreign": ("a", "b", "c", "d")}, "content", Verdict.UNFIT, "other things (a, b, c)"),
        ({"is_store": True}, "content", Verdict.OK, "backup folder already"),
        ({"is_store": True, "store_problem": "torn"}, "content", Verdict.UNFIT, "torn"),
        ({"is_store": True}, "lease", Verdict.OK, "No host"),
        ({"is_store": True, "lease": LEASE, "own_lease": True}, "lease", Verdict.OK, "This host"),
        ({"is_store": True, "lease": LEASE}, "lease", Verdict.UNFIT, 'the "tower"'),
        ({"is_store": True, "lease_problem": "torn"}, "lease", Verdict.WARNING, "torn"),
        ({"filesystem": "tmpfs"}, "filesystem", Verdict.UNFIT, "RAM"),
        ({"filesystem": "rootfs", "mount": "/"}, "filesystem", Verdict.UNFIT, "RAM"),
        ({"filesystem": "ramfs", "allow_ram": True}, "filesystem", Verdict.WARNING, "RAM"),
        ({"filesystem": "vfat", "mount": "/boot"}, "filesystem", Verdict.UNFIT, "flash"),
        ({"mount": "/boot/efi"}, "filesystem", Verdict.UNFIT, "starts from"),
        ({"mount": "/bootstrap"}, "filesystem", Verdict.OK, "disk of its own"),
        ({"filesystem": "overlay", "mount": "/"}, "filesystem", Verdict.WARNING, "container"),
        ({"filesystem": "ext4", "mount": "/"}, "filesystem", Verdict.WARNING, "is not"),
        ({"filesystem": "nfs4", "source": "nas:/x"}, "network", Verdict.WARNING, "nas:/x"),
        ({"filesystem": "cifs"}, "network", Verdict.WARNING, "another machine"),
        ({"filesystem": "fuse.sshfs"}, "network", Verdict.WARNING, "another machine"),
        ({"filesystem": "fuse.bindfs"}, "fuse", Verdict.WARNING, "ordinary program"),
        ({"filesystem": "fuseblk"}, "fuse", Verdict.WARNING, "ordinary program"),
        ({"trials": failing(Trial.RENAME)}, "rename", Verdict.UNFIT, "it is so"),
        ({"trials": failing(Trial.AT_ONCE)}, "rename-while-read", Verdict.WARNING, "it is so"),
        ({"trials": failing(Trial.FSYNC)}, "fsync", Verdict.UNFIT, "power cut"),
        ({"trials": failing(Trial.EXCLUSIVE)}, "exclusive-create", Verdict.UNFIT, "it is so"),
        ({"trials": failing(Trial.LOCK)}, "lock", Verdict.UNFIT, "same time"),
        ({"trials": failing(Trial.BIG)}, "big-files", Verdict.UNFIT, "as large as the disk"),
        ({"trials": failing(Trial.SPARSE)}, "sparse-files", Verdict.WARNING, "full size"),
        ({"trials": failing(Trial.NAMES)}, "file-names", Verdict.UNFIT, "it is so"),
        ({"trials": failing(Trial.ODD_NAMES)}, "file-names", Verdict.WARNING, "Not all letters"),
        ({"case_blind": True}, "file-names", Verdict.OK, "does no harm"),
        ({"room": Room(GIB // 8, 1000 * GIB, 1)}, "space", Verdict.UNFIT, "full"),
        ({"room": Room(5 * GIB, 1000 * GIB, 1)}, "space", Verdict.WARNING, "5 GiB of"),
        ({"write_rate": 29e6}, "speed", Verdict.WARNING, "29 MB/s written"),
        ({"read_rate": 2e6}, "speed", Verdict.WARNING, "100 GB take 14 hours"),
        ({"read_rate": 30e6}, "speed", Verdict.OK, "30 MB/s read"),
        ({"disks_beside": ("a (vda)",)}, "same-disk", Verdict.WARNING, "lost together"),
        ({"disks_beside": tuple("abcde")}, "same-disk", Verdict.WARNING, "a, b, c and 2 more"),
        ({"left": ".vmb-check-x"}, "traces", Verdict.WARNING, ".vmb-check-x"),
    ],
)
def test_what_is_said_of_a_place(
    place: Place | dict[str, object], check: str, verdict: Verdict, words: str
) -> None:
    given = place if isinstance(place, Place) else replace(GOOD, **place)  # type: ignore[arg-type]
    (finding,) = (f for f in judge(given) if f.check == check)
    assert (finding.verdict, words in finding.text) == (verdict, True), finding
    assert bool(finding.way_out) == (verdict is not Verdict.OK)
    assert overall(judge(given)) is verdict


def test_a_user_share_of_unraid_is_explained_with_what_to_name_instead() -> None:
    place = replace(
        GOOD,
        path="/mnt/user/my backups/vms",
        filesystem="fuse.shfs",
        mount="/mnt/user",
        location="cache",
    )
    (finding,) = (f for f in judge(place) if f.verdict is not Verdict.OK)
    assert (finding.check, finding.verdict) == ("user-share", Verdict.WARNING)
    assert "mover" in finding.text
    assert "'cache'" in finding.text
    assert "/mnt/cache/my backups/vms" in finding.way_out
    assert "split level" in finding.way_out


def test_what_could_not_be_tried_is_not_spoken_of() -> None:
    place = replace(GOOD, unwritable="denied", trials=(), write_rate=None, read_rate=None)
    checks = {finding.check for finding in judge(place)}
    assert checks == {"writable", "content", "filesystem", "space"}
