"""The backup folder: what is begun, committed, swept, found again and refused."""

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.failing import fail_at
from tests.support.fakes.clock import FakeClock
from tests.support.points import BEGAN, CHAIN_ID, MIB, VM_UUID, attempt, point, point_disk
from tests.support.world import environment, unchanged
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore, open_store
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH
from vm_babysitter.domain.chain import Attempt, Chain, ChainState
from vm_babysitter.domain.errors import (
    Busy,
    PointDamaged,
    StoreFailed,
    UnsupportedFormat,
)
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Seen
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.ports import PointDraft

VM = Vm(VM_UUID, "it's a VM", PowerState.RUNNING, ())
DATA = b"\x5a" * BLOCK_SIZE


def opened(path: Path, *, create: bool = True) -> LocalStore:
    """Open the folder as another process would."""
    return open_store(path, FakeClock(), Qcow2Writer, digest_file, create=create, allow_ram=True)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    folder = tmp_path / 'store: "x", ü'
    folder.mkdir()
    return opened(folder)


@pytest.fixture
def chain(store: LocalStore) -> Chain:
    """A chain without points."""
    return store.new_chain(VM, CHAIN_ID, BEGAN)


def write(draft: PointDraft, made: Point) -> Point:
    """Write all files of a point of one disk; the point with what is true of them."""
    disk = made.disks[0]
    image = draft.image(disk.target, MIB, None)
    index = draft.index(disk.target, MIB)
    image.map_data(3, image.append(memoryview(DATA), [fingerprint(DATA)]), 1)
    index.add(3, fingerprint(DATA))
    written, (index_file, entries) = image.finish(), index.finish()
    disk = replace(
        disk,
        file_size=written.size,
        digest=written.digest,
        index_digest=index_file.digest,
        index_entries=entries,
    )
    return replace(made, disks=(disk,), files=(draft.save("domain.xml", b"<domain/>"),))


def commit(store: LocalStore, chain: Chain, seq: int) -> tuple[Attempt, Point]:
    """Make a point without sweeping the attempt."""
    trying = attempt(seq)
    below = "000000-full" if seq else None
    made = point(seq, 0 if seq else None, disks=[point_disk(parent=below)])
    made = replace(made, nonce=trying.nonce)
    draft = store.begin(chain, trying)
    made = write(draft, made)
    draft.commit(made)
    return trying, made


@pytest.fixture
def points(store: LocalStore, chain: Chain) -> list[Point]:
    """Two committed points."""
    made = []
    for seq in range(2):
        trying, committed = commit(store, chain, seq)
        store.sweep(trying)
        made.append(committed)
    return made


def only(store: LocalStore) -> Chain:
    """The one chain, read anew."""
    (found,) = opened(store.path, create=False).chains(VM_UUID)
    return found


def place_of(store: LocalStore, chain: Chain, *names: str) -> Path:
    """A path inside a chain's directory."""
    (vm,) = store.vms()
    return store.path.joinpath(vm.directory, chain.directory, *names)


# -- the folder ---------------------------------------------------------------------------


def test_opened_again_it_is_the_same_store(store: LocalStore) -> None:
    assert store.id
    assert opened(store.path).id == store.id
    assert opened(store.path, create=False).id == store.id
    assert store.vms() == ()
    assert store.chains(VM_UUID) == ()
    assert 0 < store.room().free < store.room().total


def test_backups_of_which_only_the_manifests_are_left_are_backups(
    store: LocalStore, points: list[Point]
) -> None:
    for name in ("store.json", "vm.json", "chain.json"):
        next(store.path.rglob(name)).unlink()
    for create in (False, True):
        again = opened(store.path, create=create)
        assert [len(c.points) for c in again.chains(VM_UUID)] == [len(points)]


@pytest.mark.parametrize("document", ["store.json", "vm.json", "chain.json", "point.json"])
def test_document_of_a_newer_version_is_refused_and_nothing_is_changed(
    store: LocalStore, points: list[Point], document: str
) -> None:
    path = min(store.path.rglob(document))
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "format": 2}))
    with unchanged(store.path), pytest.raises(UnsupportedFormat) as caught:
        opened(store.path).chains(VM_UUID)
    assert (caught.value.found, caught.value.known) == (2, 1)


def test_what_else_lies_in_the_folder_is_passed_over(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    place = place_of(store, chain)
    for folder in (store.path, place.parent, place):
        (folder / "notes.txt").write_bytes(b"mine")
        (folder / "a folder").mkdir()
    (place.parent / "20990101T000000Z").write_bytes(b"a file")
    (place / "000099-full").write_bytes(b"a file")
    with unchanged(store.path):
        assert [vm.uuid for vm in store.vms()] == [VM_UUID]
        found = only(store)
        assert [s.point for s in found.points] == points
        assert not found.unreadable
    store.remove_empty_chains(VM_UUID)
    assert (place.parent / "20990101T000000Z").exists()


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [a_folder, os.mkfifo, a_socket, a_link_to_itself])
@pytest.mark.parametrize(
    "name",
    [
        "photos/vm.json",
        "photos/a/b/point.json",
        "{chain}/000007-inc.attempt.json",
        "{chain}/000001-inc.damage.json",
        "{chain}/current.json",
    ],
)
def test_what_has_the_name_of_a_document_and_is_no_file_stops_nothing(
    store: LocalStore,
    chain: Chain,
    points: list[Point],
    make: Callable[[Path], object],
    name: str,
) -> None:
    path = store.path / name.format(chain=place_of(store, chain))
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    assert [vm.uuid for vm in opened(store.path).vms()] == [VM_UUID]
    found = only(store)
    assert [s.point for s in found.points] == points
    assert (found.broken, found.attempts, found.noted) == ({}, (), None)


@pytest.mark.parametrize("make", [a_folder, os.mkfifo, a_socket, a_link_to_itself])
def test_a_manifest_that_is_no_file_is_an_unreadable_point(
    store: LocalStore, chain: Chain, points: list[Point], make: Callable[[Path], object]
) -> None:
    path = place_of(store, chain, "000001-inc", "point.json")
    path.unlink()
    make(path)
    (unreadable,) = only(store).unreadable
    assert (unreadable.seq, "it is no file" in unreadable.problem) == (1, True)


def test_everything_is_for_its_owner_only(store: LocalStore, points: list[Point]) -> None:
    for path in store.path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_vanished_folder_is_a_failure(store: LocalStore, chain: Chain) -> None:
    shutil.rmtree(store.path)
    for use in (
        lambda: store.begin(chain, attempt()),
        lambda: store.new_chain(VM, CHAIN_ID, BEGAN),
        lambda: store.archive(VM_UUID, chain, "x"),
        store.vms,
        store.room,
    ):
        with pytest.raises(StoreFailed):
            use()


# -- the lock -----------------------------------------------------------------------------


def test_lock_excludes_a_second_holder_until_it_is_released(store: LocalStore) -> None:
    other = opened(store.path)
    with store.lock(), pytest.raises(Busy), other.lock():
        pass
    with other.lock():
        pass


def test_a_file_system_without_locks_is_a_failure_and_not_silence(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreFailed, match="cannot be locked"), store.lock():
        pass


def test_lock_of_a_process_that_was_killed_is_free(store: LocalStore) -> None:
    program = (
        "import sys, pathlib; from tests.contract.test_local_store import opened\n"
        "with opened(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), store.lock():
            pass
        holder.kill()
        holder.wait(30)
    with store.lock():
        pass


# -- VMs ----------------------------------------------------------------------------------


def test_renamed_vm_keeps_its_directory_and_all_its_names(store: LocalStore) -> None:
    for number, name in enumerate(("old", "new", "old")):
        store.new_chain(replace(VM, name=name), f"{number}{CHAIN_ID[1:]}", BEGAN)
    (vm,) = opened(store.path).vms()
    assert vm.names == ("new", "old")
    assert vm.directory.startswith("old-")
    assert len(store.chains(VM_UUID)) == 3


@pytest.mark.parametrize("other", ["a" + VM_UUID[1:], VM_UUID[:-1] + "7"])
def test_vms_of_one_name_have_directories_of_their_own(store: LocalStore, other: str) -> None:
    for uuid in (VM_UUID, other):
        store.new_chain(replace(VM, uuid=uuid), CHAIN_ID, BEGAN)
    found = opened(store.path).vms()
    assert {vm.uuid for vm in found} == {VM_UUID, other}
    assert len({vm.directory for vm in found}) == 2
    assert all(len(store.chains(uuid)) == 1 for uuid in (VM_UUID, other))


@pytest.mark.parametrize(
    "name",
    ["../../x", "/", "..", "a/b", "-rf", "x" * 300, "日本" * 99, "con", "a\nb", " . ", "$(x)"],
)
def test_odd_name_stays_inside_the_folder_and_is_remembered(store: LocalStore, name: str) -> None:
    store.new_chain(replace(VM, name=name), CHAIN_ID, BEGAN)
    (vm,) = opened(store.path).vms()
    assert vm.names == (name,)
    assert (store.path / vm.directory).resolve().parent == store.path.resolve()
    assert len(os.fsencode(vm.directory)) < 255
    assert {p.name for p in store.path.parent.iterdir()} == {store.path.name}


# -- chains -------------------------------------------------------------------------------


def test_new_chain_is_found_again_live_and_empty(store: LocalStore, chain: Chain) -> None:
    found = only(store)
    assert found == chain
    assert (found.id, found.state, found.why) == (CHAIN_ID, ChainState.LIVE, "")
    assert (found.points, found.attempts, found.next_seq) == ((), (), 0)


def test_chains_of_one_second_have_directories_of_their_own_in_order(store: LocalStore) -> None:
    ids = [f"{number}{CHAIN_ID[1:]}" for number in range(3)]
    for id_ in ids:
        store.new_chain(VM, id_, BEGAN)
    found = store.chains(VM_UUID)
    assert [chain.id for chain in found] == ids
    assert len({chain.directory for chain in found}) == 3


def test_archived_chain_stays_so_with_its_first_reason(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    store.archive(VM_UUID, chain, "first")
    store.archive(VM_UUID, chain, "second")
    found = only(store)
    assert (found.state, found.why) == (ChainState.ARCHIVED, "first")
    assert [s.point for s in found.points] == points


def test_a_mark_that_was_killed_while_it_was_written_goes_from_any_chain(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    torn = place_of(store, chain, ".000002-inc.attempt.json.tmp")
    others = [place_of(store, chain, f".{name}.tmp") for name in ("notes.json", "chain.json")]
    for path in (torn, *others):
        path.write_bytes(b"{")
    store.remove_empty_chains(VM_UUID)
    assert not torn.exists()
    assert all(path.exists() for path in others)
    assert [s.point for s in only(store).points] == points


def test_only_chains_that_never_had_anything_are_removed(store: LocalStore) -> None:
    chains = [store.new_chain(VM, f"{number}{CHAIN_ID[1:]}", BEGAN) for number in range(5)]
    empty, begun, swept, noted, full = chains
    store.begin(begun, attempt(chain_id=begun.id))
    trying = attempt(chain_id=swept.id)
    store.begin(swept, trying)
    store.sweep(trying)
    place_of(store, noted, "notes.txt").write_bytes(b"mine")
    made = replace(point(disks=[point_disk()]), chain_id=full.id)
    draft = store.begin(full, attempt(chain_id=full.id))
    draft.commit(write(draft, made))
    store.remove_empty_chains(VM_UUID)
    left = {chain.id for chain in store.chains(VM_UUID)}
    assert left == {begun.id, noted.id, full.id}
    assert not place_of(store, empty).exists()
    assert place_of(store, noted, "notes.txt").read_bytes() == b"mine"
    store.remove_empty_chains("unknown")


# -- attempts -----------------------------------------------------------------------------


def test_begun_point_does_not_count_and_its_number_is_taken(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    trying = attempt(2)
    draft = store.begin(chain, trying)
    write(draft, point(2, 1))
    found = only(store)
    assert [s.point for s in found.points] == points
    assert found.attempts == (trying,)
    assert not found.unreadable
    assert found.next_seq == 3


def test_committed_point_counts_before_and_after_its_attempt_is_swept(
    store: LocalStore, chain: Chain
) -> None:
    trying, made = commit(store, chain, 0)
    before = only(store)
    assert [s.point for s in before.points] == [made]
    assert before.attempts == (trying,)
    assert not before.broken
    for _ in range(2):
        store.sweep(trying)
        after = only(store)
        assert [s.point for s in after.points] == [made]
        assert after.attempts == ()


def test_swept_attempt_is_gone_and_everything_else_stays(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    trying = attempt(2)
    with unchanged(place_of(store, chain, "000000-full"), place_of(store, chain, "000001-inc")):
        write(store.begin(chain, trying), point(2, 1))
        for _ in range(2):
            opened(store.path).sweep(trying)
            found = only(store)
            assert (found.attempts, found.next_seq) == ((), 2)
            assert not place_of(store, chain, trying.directory).exists()


def test_sweep_may_keep_the_mark(store: LocalStore, chain: Chain) -> None:
    trying = attempt()
    write(store.begin(chain, trying), point())
    store.sweep(trying, keep_mark=True)
    assert not place_of(store, chain, trying.directory).exists()
    assert only(store).attempts == (trying,)
    store.sweep(trying)
    assert only(store).attempts == ()


@pytest.mark.parametrize("left", [(), ("vda.qcow2",), ("vda.index", "domain.xml")])
def test_attempt_whose_begin_or_sweep_was_cut_short_is_swept(
    store: LocalStore, chain: Chain, left: tuple[str, ...]
) -> None:
    trying = attempt()
    write(store.begin(chain, trying), point())
    place = place_of(store, chain, trying.directory)
    for path in place.iterdir():
        if path.name not in left:
            path.unlink()
    if not left:
        place.rmdir()
    assert only(store).attempts == (trying,)
    store.sweep(trying)
    assert not place.exists()
    assert only(store) == chain


def test_other_attempt_of_the_same_number_is_not_swept(store: LocalStore, chain: Chain) -> None:
    trying = attempt(nonce="aaaaaa")
    store.begin(chain, trying)
    store.sweep(attempt(nonce="bbbbbb"))
    assert only(store).attempts == (trying,)


def test_directory_that_is_there_is_never_begun_again(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    with unchanged(place_of(store, chain, "000000-full")), pytest.raises(StoreFailed):
        store.begin(chain, attempt(0))
    store.sweep(attempt(0))
    assert [s.point for s in only(store).points] == points


def test_a_number_that_no_name_of_a_point_has_is_not_begun(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    place_of(store, chain, "999999-full").mkdir()
    with unchanged(store.path), pytest.raises(StoreFailed, match="used up"):
        store.begin(chain, attempt(only(store).next_seq))


def test_dropped_disk_is_made_again(store: LocalStore, chain: Chain) -> None:
    trying = attempt()
    draft = store.begin(chain, trying)
    image, index = draft.image("vda", MIB, None), draft.index("vda", MIB)
    image.append(memoryview(DATA), [fingerprint(DATA)])
    image.discard()
    index.discard()
    for _ in range(2):
        draft.drop("vda")
        assert list(place_of(store, chain, trying.directory).iterdir()) == []
    draft.commit(write(draft, replace(point(), nonce=trying.nonce)))
    assert not only(store).broken


def test_saved_file_is_never_written_over(store: LocalStore, chain: Chain) -> None:
    draft = store.begin(chain, attempt())
    draft.save("domain.xml", b"first")
    with pytest.raises(StoreFailed):
        draft.save("domain.xml", b"second")
    assert place_of(store, chain, "000000-full", "domain.xml").read_bytes() == b"first"


# -- damage -------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("vda.qcow2", Path.unlink, "vda.qcow2: it is missing"),
        ("vda.qcow2", cut, "vda.qcow2: it has"),
        ("vda.qcow2", lengthen, "vda.qcow2: it has"),
        ("domain.xml", Path.unlink, "domain.xml: it is missing"),
        ("domain.xml", cut, "domain.xml: it has 8 bytes instead of 9"),
        ("vda.index", Path.unlink, "vda.index: it is missing"),
        ("vda.index", cut, "vda.index: it has 51 bytes instead of 52"),
    ],
)
def test_missing_and_changed_sizes_are_told_and_spread_to_what_reads_them(
    store: LocalStore,
    chain: Chain,
    points: list[Point],
    name: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    damage(place_of(store, chain, "000000-full", name))
    broken, beside = only(store).broken, name == "domain.xml"
    assert broken.keys() == ({0} if beside else {0, 1})
    assert broken[0].startswith(words)
    assert only(store).newest_intact == (points[1] if beside else None)


def test_all_that_is_wrong_is_told_file_by_file(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    place = place_of(store, chain, "000001-inc")
    (place / "vda.qcow2").unlink()
    (place / "vda.qcow2").mkdir()
    cut(place / "vda.index")
    (place / "domain.xml").unlink()
    (place / "domain.xml").symlink_to("domain.xml")
    first, second = only(store).points
    assert first.flaws == ()
    assert [flaw.file for flaw in second.flaws] == ["vda.qcow2", "vda.index", "domain.xml"]
    reasons = [flaw.reason for flaw in second.flaws]
    assert reasons[0] == "it is no file"
    assert reasons[2] == "it cannot be looked at (Too many levels of symbolic links)"
    assert all(flaw.evidence for flaw in second.flaws)


OUT_OF_REACH = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT]


@pytest.mark.parametrize("number", OUT_OF_REACH, ids=os.strerror)
def test_what_cannot_be_looked_at_is_no_evidence_of_damage(
    store: LocalStore,
    chain: Chain,
    points: list[Point],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_at(monkeypatch, "stat", place_of(store, chain, "000000-full", "vda.qcow2"), number)
    found = only(store)
    (flaw,) = found.points[0].flaws
    assert (flaw.file, flaw.evidence) == ("vda.qcow2", False)
    assert found.broken.keys() == {0, 1}
    assert found.out_of_reach(0)
    assert found.out_of_reach(1)


@pytest.mark.parametrize("name", ["", "000000-full", "000001-inc.attempt.json"])
def test_a_folder_that_cannot_be_looked_at_is_a_failure_of_the_store(
    store: LocalStore, chain: Chain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trying, _ = commit(store, chain, 0)
    store.sweep(trying)
    commit(store, chain, 1)
    fail_at(monkeypatch, "stat", place_of(store, chain, name), errno.EACCES)
    fail_at(monkeypatch, "open", place_of(store, chain, name), errno.EACCES)
    with pytest.raises(StoreFailed):
        store.chains(VM_UUID)


def test_a_folder_of_another_vm_that_cannot_be_read_spares_this_one(
    store: LocalStore, chain: Chain, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(VM, name="other", uuid="12345678-1111-4222-8333-444455556666")
    store.new_chain(other, "another", BEGAN)
    (folder,) = store.path.glob("other-*")
    fail_at(monkeypatch, "open", folder / "vm.json", errno.ESTALE)
    assert [s.point for s in only(store).points] == points
    assert opened(store.path).oddities(VM_UUID) == ()
    for uuid in (other.uuid, "unknown"):  # it may be that one
        with pytest.raises(StoreFailed):
            opened(store.path).chains(uuid)
        with pytest.raises(StoreFailed):
            opened(store.path).oddities(uuid)
    with pytest.raises(StoreFailed):
        opened(store.path).vms()


def test_a_copy_is_not_taken_for_the_folder_that_cannot_be_read(
    store: LocalStore, chain: Chain, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    (vm,) = store.vms()
    shutil.copytree(store.path / vm.directory, store.path / "copy")
    fail_at(monkeypatch, "open", store.path / vm.directory / "vm.json", errno.ESTALE)
    with pytest.raises(StoreFailed):
        opened(store.path).chains(VM_UUID)


def test_a_copy_is_not_taken_for_the_folder_whose_document_is_on_a_bad_sector(
    store: LocalStore, chain: Chain, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    (vm,) = store.vms()
    shutil.copytree(store.path / vm.directory, store.path / "copy")
    fail_at(monkeypatch, "open", store.path / vm.directory / "vm.json", errno.EIO)
    found = opened(store.path).file_path(VM_UUID, chain, points[0], "vda.index")
    assert found == place_of(store, chain, "000000-full", "vda.index")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ENOTCONN])
def test_an_index_that_is_out_of_reach_is_not_called_damaged(
    store: LocalStore,
    chain: Chain,
    points: list[Point],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_at(monkeypatch, "open", place_of(store, chain, "000000-full", "vda.index"), number)
    layers = [(points[0], points[0].disks[0])]
    with pytest.raises(StoreFailed), store.open_index(VM_UUID, chain, layers):
        pass


# -- a damaged mark, and no manifest -------------------------------------------------------------


def begun_with_a_damaged_mark(store: LocalStore, chain: Chain) -> Path:
    """Begin point 2, of which all but the manifest is written; return its folder."""
    write(store.begin(chain, attempt(2)), point(2, 1))
    mark = place_of(store, chain, "000002-inc.attempt.json")
    mark.write_bytes(mark.read_bytes()[:20])
    return place_of(store, chain, "000002-inc")


def test_a_backup_whose_mark_is_damaged_is_known_to_be_unfinished(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    folder = begun_with_a_damaged_mark(store, chain)
    (found,) = only(store).unreadable
    assert (found.seq, found.unfinished) == (2, True)
    assert "000002-inc.attempt.json is damaged" in found.problem
    assert only(store).next_seq == 3
    store.remove_empty_chains(VM_UUID)
    assert folder.is_dir()  # it is a guess: nothing is removed by it


def test_in_doubt_a_folder_without_a_manifest_was_a_point(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    folder = begun_with_a_damaged_mark(store, chain)
    mark = place_of(store, chain, "000002-inc.attempt.json")

    def is_unfinished() -> bool:
        (found,) = only(store).unreadable
        return found.unfinished

    content = mark.read_bytes()
    mark.unlink()
    assert not is_unfinished()
    mark.write_bytes(content)
    assert is_unfinished()
    for name in ("point.json", "../000002-inc.damage.json"):
        (folder / name).write_text("{")
        assert not is_unfinished()
        (folder / name).unlink()
    trying = attempt(3)
    draft = store.begin(chain, trying)
    on_it = point(3, 2, disks=[point_disk(parent="000002-inc")])
    draft.commit(write(draft, replace(on_it, nonce=trying.nonce)))
    store.sweep(trying)
    assert not is_unfinished()  # something builds on it


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"it's", b"its'")),
        lambda path: shutil.copy(path.parent.parent / "000001-inc" / "point.json", path),
        lambda path: shutil.copy(path.parent.parent / "chain.json", path),
    ],
    ids=["missing", "cut", "empty", "changed", "of another point", "another document"],
)
def test_unreadable_manifest_is_told_and_its_files_are_kept(
    store: LocalStore, chain: Chain, points: list[Point], damage: Callable[[Path], object]
) -> None:
    damage(place_of(store, chain, "000000-full", "point.json"))
    with unchanged(place_of(store, chain, "000000-full")):
        found = only(store)
        assert [(u.seq, u.directory) for u in found.unreadable] == [(0, "000000-full")]
        assert found.unreadable[0].problem
        assert [s.point.seq for s in found.points] == [1]
        assert found.broken.keys() == {1}
        assert found.next_seq == 2
        store.sweep(attempt(0))
        store.remove_empty_chains(VM_UUID)


def test_index_that_is_not_what_was_written_is_named_with_its_point(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    layers = [(p, p.disks[0]) for p in reversed(points)]
    with store.open_index(VM_UUID, chain, layers) as index:
        assert index.expected(2, 3) == [ZERO_HASH, fingerprint(DATA), ZERO_HASH]
    with place_of(store, chain, "000000-full", "vda.index").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(PointDamaged) as caught, store.open_index(VM_UUID, chain, layers):
        pass
    assert caught.value.seq == 0
    with store.open_index(VM_UUID, chain, layers[:1]):
        pass


@pytest.mark.parametrize(
    ("number", "evidence"),
    [(errno.EIO, True), (errno.EUCLEAN, True), (errno.ESTALE, False), (errno.ENOTCONN, False)],
)
def test_a_file_that_cannot_be_read_is_damaged_only_if_its_medium_is(
    store: LocalStore,
    chain: Chain,
    points: list[Point],
    number: int,
    evidence: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = points[0].disks[0]
    image = store.image_path(VM_UUID, chain, points[0], disk)

    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", fail)
    found = store.check_file(image, disk.digest, image=True)
    assert (found.wrong, found.evidence) == (os.strerror(number), evidence)


def test_files_are_compared_with_their_digests(
    store: LocalStore, chain: Chain, points: list[Point]
) -> None:
    disk, file = points[0].disks[0], points[0].files[0]
    image = store.image_path(VM_UUID, chain, points[0], disk)
    saved = store.file_path(VM_UUID, chain, points[0], file.name)
    assert store.check_file(image, disk.digest, image=True).wrong == ""
    assert store.check_file(saved, file.digest, image=False).wrong == ""
    for path, digest, is_image in ((image, disk.digest, True), (saved, file.digest, False)):
        assert store.check_file(path, "0" * 64, image=is_image).evidence
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert store.check_file(path, digest, image=is_image).evidence
        path.unlink()
        gone = store.check_file(path, digest, image=is_image)
        assert gone.wrong
        assert not gone.evidence


# -- how a VM was found -----------------------------------------------------------------------


def test_how_a_vm_was_found_is_kept_and_written_only_if_it_is_new(
    store: LocalStore, points: list[Point]
) -> None:
    seen = Seen("h" * 32, "tower, ü", "boot 1", "run 1", BEGAN)
    assert points
    assert store.seen(VM_UUID) is None
    store.note_seen(VM_UUID, seen)
    (path,) = store.path.glob("*/seen.json")
    with unchanged(store.path):
        store.note_seen(VM_UUID, replace(seen, at=BEGAN.replace(year=2030)))
    assert opened(store.path, create=False).seen(VM_UUID) == seen
    for new in (replace(seen, started=""), replace(seen, started="", crashed=True)):
        store.note_seen(VM_UUID, new)
        assert store.seen(VM_UUID) == new
    path.write_text("torn")
    assert store.seen(VM_UUID) is None
    store.note_seen(VM_UUID, seen)
    assert store.seen(VM_UUID) == seen
    assert store.seen("00000000-0000-4000-8000-000000000000") is None
