"""One host writes to a backup folder: who gets it, who is refused, and what damage does."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.mounts import ram_disk
from tests.support.points import BEGAN, CHAIN_ID, VM_UUID, attempt, point
from tests.support.world import environment, unchanged
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.adapters.store.local import LocalStore, open_store
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import StoreFailed, StoreTaken, UnsupportedFormat
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.ports import ThisHost

HERE = ThisHost("a" * 32, "tower", "boot 1")
THERE = ThisHost("b" * 32, 'it\'s "the other", ü', "boot 2")
VM = Vm(VM_UUID, "vm", PowerState.RUNNING, ())


def opened(path: Path, host: ThisHost = HERE, *, create: bool = True) -> LocalStore:
    return open_store(
        path, FakeClock(), Qcow2Writer, digest_file, create=create, allow_ram=True, host=host
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'store: "x", ü'
    folder.mkdir()
    opened(folder)
    return folder


def lease(folder: Path, host: ThisHost = HERE) -> StoreLease:
    return StoreLease(folder, host, FakeClock().now)


def holder(folder: Path) -> str:
    """The name of the host that has the folder."""
    found = lease(folder).read()
    return "" if found is None else found.host_name


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_who_writes_first_gets_the_folder_and_goes_on(folder: Path) -> None:
    assert holder(folder) == ""
    for _ in range(2):
        with opened(folder).lock():
            assert holder(folder) == "tower"
    assert names(folder) == {"store.json", "store.lock", "lease.json"}


def test_another_host_is_refused_and_told_whose_it_is_and_what_to_do(folder: Path) -> None:
    with opened(folder).lock():
        pass
    with unchanged(folder), pytest.raises(StoreTaken) as caught, opened(folder, THERE).lock():
        pass
    words = str(caught.value)
    assert "belongs to the host 'tower', since 2026-11-24 02:15 UTC" in words
    assert f"check-store --take-over -- '{folder}'" in words.replace("'\"'\"'", "'")


def test_reading_needs_no_lease(folder: Path) -> None:
    with opened(folder).lock():
        pass
    with unchanged(folder):
        for host in (HERE, THERE):
            assert opened(folder, host, create=False).chains(VM_UUID) == ()


def test_who_takes_over_has_it_and_the_other_is_refused(folder: Path) -> None:
    with opened(folder).lock():
        pass
    lease(folder, THERE).take_over()
    assert holder(folder) == THERE.name
    with pytest.raises(StoreTaken), opened(folder).lock():
        pass
    with opened(folder, THERE).lock():
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 300])
def test_a_torn_lease_goes_to_who_writes_next(folder: Path, content: bytes) -> None:
    (folder / "lease.json").write_bytes(content)
    with opened(folder).lock():
        pass
    assert holder(folder) == "tower"
    with pytest.raises(StoreTaken), opened(folder, THERE).lock():
        pass
    assert names(folder) == {"store.json", "store.lock", "lease.json"}


def test_a_lease_in_which_a_bit_has_flipped_is_not_believed(folder: Path) -> None:
    lease(folder, THERE).take_over()
    path = folder / "lease.json"
    path.write_bytes(path.read_bytes().replace(b"bbbb", b"bbbc", 1))
    with opened(folder).lock():
        pass
    assert holder(folder) == "tower"


def test_a_lease_of_a_newer_version_is_left_alone(folder: Path) -> None:
    lease(folder).hold()
    path = folder / "lease.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with unchanged(folder), pytest.raises(UnsupportedFormat):
        lease(folder).hold()


class Late(StoreLease):
    """A host that is slow: something happens after it has found no lease, or a damaged one."""

    meanwhile = staticmethod(lambda: None)

    def _take(self) -> None:
        self.meanwhile()
        super()._take()

    def _put_aside(self) -> None:
        self.meanwhile()
        super()._put_aside()


@pytest.mark.parametrize("torn", [False, True])
def test_a_lease_that_another_host_takes_in_the_same_moment_stays_its(
    folder: Path, torn: bool
) -> None:
    late = Late(folder, HERE, FakeClock().now)
    if torn:
        (folder / "lease.json").write_bytes(b"torn")
    late.meanwhile = lambda: lease(folder, THERE).hold()
    with pytest.raises(StoreTaken):
        late.hold()
    assert holder(folder) == THERE.name
    assert names(folder) == {"store.json", "lease.json"}


@pytest.mark.parametrize("got_it", [False, True])
def test_what_a_claim_that_was_killed_left_is_removed(folder: Path, got_it: bool) -> None:
    if got_it:
        lease(folder).hold()
    (folder / f".lease.json.{HERE.id[:8]}.tmp").write_bytes(b"torn")
    with opened(folder).lock():
        pass
    assert names(folder) == {"store.json", "store.lock", "lease.json"}


def test_nothing_is_put_where_the_folder_is_gone(folder: Path) -> None:
    store = opened(folder)
    (folder / "store.json").unlink()  # as where a disk was unmounted
    with unchanged(folder), pytest.raises(StoreFailed, match="no longer in it"):
        store.new_chain(VM, CHAIN_ID, BEGAN)


def fill(path: Path) -> None:
    """Write a file until the disk is full, inodes included: a name needs a page in RAM, too."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_leaves_no_lease(tmp_path: Path) -> None:
    with ram_disk(tmp_path / "full", 64 << 10) as place:
        opened(place)
        filler = place / "filler"
        fill(filler)
        with pytest.raises(StoreFailed, match="No space"):
            lease(place).hold()
        assert names(place) == {"store.json", "filler"}
        filler.unlink()
        lease(place).hold()


_CODE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.domain.errors import StoreTaken
from vm_babysitter.ports import ThisHost
host = ThisHost(sys.argv[2], sys.argv[2], "")
lease = StoreLease(Path(sys.argv[1]), host, lambda: datetime.now(UTC))
sys.stdin.readline()
try:
    lease.hold()
except StoreTaken:
    sys.exit(1)
lease.hold()
"""


@pytest.mark.parametrize("content", [None, b"torn"])
def test_of_hosts_that_begin_at_once_one_gets_the_folder(
    folder: Path, content: bytes | None
) -> None:
    if content is not None:
        (folder / "lease.json").write_bytes(content)
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", _CODE, str(folder), letter * 32],
            stdin=subprocess.PIPE,
            env=environment(),
        )
        for letter in "cdefgh"
    ]
    for process in begun:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in begun:
        process.communicate(timeout=30)
    assert sorted(process.returncode for process in begun) == [0, 1, 1, 1, 1, 1]
    assert names(folder) == {"store.json", "lease.json"}


# -- what is refused after another host has taken over ------------------------------------------


@pytest.fixture
def begun(folder: Path) -> tuple[LocalStore, Chain]:
    """A chain of this host's with one committed point, in a folder that then was taken over."""
    store = opened(folder)
    chain = store.new_chain(VM, CHAIN_ID, BEGAN)
    store.begin(chain, attempt(0)).commit(point(0, None, disks=[]))
    return store, chain


def test_nothing_is_written_any_more_after_it_was_taken_over(
    begun: tuple[LocalStore, Chain],
) -> None:
    store, chain = begun
    draft = store.begin(chain, attempt(1))
    index = draft.index("vda", 1 << 20)
    index.finish()
    lease(store.path, THERE).take_over()
    with unchanged(store.path):
        for act in (
            lambda: draft.image("vda", 1 << 20, None),
            lambda: draft.index("vdb", 1 << 20),
            lambda: draft.drop("vda"),
            lambda: draft.save("domain.xml", b"x"),
            lambda: draft.commit(point(1, 0, disks=[])),
            lambda: store.begin(chain, attempt(2)),
            lambda: store.new_chain(VM, CHAIN_ID, BEGAN),
            lambda: store.archive(VM_UUID, chain, "why"),
            lambda: store.remove_empty_chains(VM_UUID),
        ):
            with pytest.raises(StoreTaken):
                act()
    (found,) = store.chains(VM_UUID)
    assert [p.point.seq for p in found.points] == [0]


def test_an_attempt_of_the_other_host_is_not_removed_but_ones_own_is(
    begun: tuple[LocalStore, Chain],
) -> None:
    store, chain = begun
    mine = attempt(1)
    store.begin(chain, mine)
    lease(store.path, THERE).take_over()
    with pytest.raises(StoreTaken):
        opened(store.path).sweep(mine)  # another process of this host: it did not begin it
    store.sweep(mine)
    (found,) = store.chains(VM_UUID)
    assert [a.seq for a in found.attempts] == [0]
