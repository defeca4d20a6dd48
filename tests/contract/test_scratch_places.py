"""Working space of backups: the fake and the real one."""

import os
import shutil
import socket
import subprocess
import sys
import uuid as uuids
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support.fakes.places import FakeScratchPlaces
from tests.support.mounts import lazy_disk, ram_disk, read_only
from tests.support.points import attempt
from tests.support.world import environment
from vm_babysitter.adapters.workspace import Workspace
from vm_babysitter.domain.errors import ScratchUnfit, StoreFailed
from vm_babysitter.ports import ScratchPlaces

NONCE, OTHER = "0a1b2c", "ffffff"


_HOLD = """
import sys
from pathlib import Path
from vm_babysitter.adapters import process
from vm_babysitter.adapters.workspace import Workspace
with Workspace(Path(sys.argv[1]), Path()).hold(sys.argv[2]):
    if sys.argv[3] == "child":
        process.start_survivor([sys.executable, "-c", "input()"])
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(
    runtime: Path, nonce: str, *, child: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process is at an attempt, and has started one that outlives it."""
    command = [sys.executable, "-c", _HOLD, str(runtime), nonce, "child" if child else ""]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process
        process.kill()


class PlacesContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def disk(self) -> str:
        """Path of a disk's image."""
        raise NotImplementedError

    @pytest.fixture
    def places(self) -> ScratchPlaces:
        raise NotImplementedError

    @pytest.fixture
    def make(self) -> Callable[[str], None]:
        """Makes the file at a path, as libvirt does."""
        raise NotImplementedError

    @pytest.fixture
    def there(self) -> Callable[[str], bool]:
        """Tells whether there is something at a path."""
        raise NotImplementedError

    def test_scratch_lies_beside_the_disk_under_a_name_of_its_own(
        self, places: ScratchPlaces, disk: str
    ) -> None:
        paths = {
            places.scratch_path(disk, nonce, target)
            for nonce in (NONCE, OTHER)
            for target in ("vda", "vdb")
        }
        assert len(paths) == 4
        assert {os.path.dirname(path) for path in paths} == {os.path.dirname(disk)}  # noqa: PTH120

    def test_sockets_have_names_of_their_own_that_are_short_enough(
        self, places: ScratchPlaces
    ) -> None:
        assert places.socket_path(NONCE) != places.socket_path(OTHER)
        assert places.socket_path(NONCE) == places.socket_path(NONCE)
        assert len(os.fsencode(places.socket_path(NONCE))) < 108

    def test_what_an_attempt_left_is_removed_and_removing_it_again_is_fine(
        self,
        places: ScratchPlaces,
        disk: str,
        make: Callable[[str], None],
        there: Callable[[str], bool],
    ) -> None:
        for path in (places.scratch_path(disk, NONCE, "vda"), places.socket_path(NONCE)):
            make(path)
            assert there(path)
            for _ in range(2):
                places.remove(path, NONCE)
                assert not there(path)

    def test_what_is_not_of_the_attempt_is_kept(
        self,
        places: ScratchPlaces,
        disk: str,
        make: Callable[[str], None],
        there: Callable[[str], bool],
    ) -> None:
        mine = places.scratch_path(disk, NONCE, "vda")
        for path, nonce in (
            (disk, NONCE),
            (disk, ""),
            (mine, OTHER),
            (mine, ""),
            (places.socket_path(NONCE), OTHER),
            (f"{os.path.dirname(disk)}/{NONCE}", NONCE),  # noqa: PTH120
            (f"{mine}.qcow2", NONCE),
        ):
            make(path)
            places.remove(path, nonce)
            assert there(path), (path, nonce)

    def test_who_is_at_an_attempt_shows_as_long_as_that_lasts(self, places: ScratchPlaces) -> None:
        assert places.holder(NONCE) == ""
        with places.hold(NONCE):
            assert places.holder(NONCE).startswith("process ")
            assert places.holder(OTHER) == ""
            places.remove_abandoned()
            assert places.holder(NONCE)
            with places.hold(OTHER):
                assert places.holder(OTHER)
        assert (places.holder(NONCE), places.holder(OTHER)) == ("", "")
        with pytest.raises(ZeroDivisionError), places.hold(NONCE):
            raise ZeroDivisionError
        assert places.holder(NONCE) == ""

    def test_where_nobody_has_anything_of_an_attempt_nothing_is_still_used(
        self, places: ScratchPlaces
    ) -> None:
        assert places.still_used(attempt()) == ""

    def test_fit_place_is_fit(self, places: ScratchPlaces, disk: str) -> None:
        assert places.probe(places.scratch_path(disk, NONCE, "vda")) == ""


class TestFakeScratchPlaces(PlacesContract):
    @pytest.fixture
    def disk(self) -> str:
        return "/vms/a vm/vda.qcow2"

    @pytest.fixture
    def places(self) -> FakeScratchPlaces:
        return FakeScratchPlaces()

    @pytest.fixture
    def make(self, places: FakeScratchPlaces) -> Callable[[str], None]:
        return places.files.add

    @pytest.fixture
    def there(self, places: FakeScratchPlaces) -> Callable[[str], bool]:
        return places.files.__contains__


class TestWorkspace(PlacesContract):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> str:
        path = tmp_path / "a: \"disk\", 'of' %s 日本"
        path.mkdir()
        (path / "-vda.qcow2").touch()
        return str(path / "-vda.qcow2")

    @pytest.fixture
    def places(self, folder: Path, tmp_path: Path) -> Workspace:
        return Workspace(folder / "run", tmp_path / "fallback")

    @pytest.fixture
    def make(self) -> Callable[[str], None]:
        def make(path: str) -> None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("socket"):
                with socket.socket(socket.AF_UNIX) as server:
                    server.bind(path)
            else:
                Path(path).touch()

        return make

    @pytest.fixture
    def there(self) -> Callable[[str], bool]:
        return os.path.lexists

    def test_a_process_that_is_killed_is_at_no_attempt_any_more(
        self, places: Workspace, folder: Path
    ) -> None:
        with holding(folder / "run", NONCE) as process:
            assert places.holder(NONCE) == f"process {process.pid}"
            places.remove_abandoned()
            assert places.holder(NONCE) == f"process {process.pid}"
            process.kill()
            process.wait()
            assert places.holder(NONCE) == ""
        assert list((folder / "run").iterdir())
        places.remove_abandoned()
        assert not list((folder / "run").iterdir())

    def test_children_of_a_process_that_is_killed_do_not_stand_in_for_it(
        self, places: Workspace, folder: Path
    ) -> None:
        with holding(folder / "run", NONCE, child=True) as process:
            assert places.holder(NONCE)
            process.kill()
            process.wait()
            assert places.holder(NONCE) == ""

    def test_a_name_that_no_attempt_has_is_held_by_nobody(
        self, places: Workspace, folder: Path
    ) -> None:
        with holding(folder / "run", NONCE):
            assert places.holder(f"../run/attempt-{NONCE}") == ""

    def test_where_it_cannot_be_shown_it_is_an_error(self, places: Workspace, folder: Path) -> None:
        (folder / "run").write_text("in the way")
        with pytest.raises(StoreFailed), places.hold(NONCE):
            pass

    def test_a_qemu_with_the_uuid_of_the_vm_is_seen(self, places: Workspace) -> None:
        uuid = str(uuids.uuid4())
        left = replace(attempt(), vm_uuid=uuid)
        pretender = [sys.executable, "-c", "print(flush=True); input()", "-uuid", uuid]
        with subprocess.Popen(pretender, stdin=PIPE, stdout=PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert places.still_used(left) == "a QEMU with its UUID runs"
            assert places.still_used(replace(left, vm_uuid=str(uuids.uuid4()))) == ""
            process.kill()
        assert places.still_used(left) == ""

    def test_somebody_who_listens_at_the_socket_is_seen_and_not_disturbed(
        self, places: Workspace, folder: Path
    ) -> None:
        path = folder / "a socket"
        left = replace(attempt(), socket=str(path))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            assert places.still_used(left) == ""  # bound, but nobody listens
            server.listen()
            server.setblocking(False)
            assert str(path) in places.still_used(left)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert path.exists()
        assert places.still_used(left) == ""

    def test_scratch_that_a_program_has_open_is_seen(self, places: Workspace, disk: str) -> None:
        path = Path(places.scratch_path(disk, NONCE, "vda"))
        left = replace(attempt(), scratch=(str(path),))
        with path.open("wb"):
            assert f"(process {os.getpid()})" in places.still_used(left)
        assert places.still_used(left) == ""

    def test_probe_leaves_nothing_and_can_be_repeated(self, places: Workspace, disk: str) -> None:
        before = set(Path(disk).parent.iterdir())
        path = places.scratch_path(disk, NONCE, "vda")
        assert (places.probe(path), places.probe(path)) == ("", "")
        assert set(Path(disk).parent.iterdir()) == before

    def test_what_was_removed_does_not_come_back_after_a_power_cut(
        self, places: Workspace, tmp_path: Path
    ) -> None:
        cut = tmp_path / "image as it is on the disk"
        with lazy_disk(tmp_path / "image", tmp_path / "disk") as disk:
            (disk / "vda.qcow2").touch()
            path = Path(places.scratch_path(str(disk / "vda.qcow2"), NONCE, "vda"))
            path.write_bytes(b"old content")
            os.sync()
            assert places.probe(str(path)) == ""
            places.remove(str(path), NONCE)
            shutil.copyfile(tmp_path / "image", cut)
        with lazy_disk(cut, tmp_path / "after") as disk:
            assert {p.name for p in disk.iterdir()} == {"lost+found", "vda.qcow2"}

    def test_place_that_cannot_be_written_to_is_unfit(
        self, places: Workspace, disk: str, tmp_path: Path
    ) -> None:
        path = places.scratch_path(disk, NONCE, "vda")
        with read_only(Path(disk).parent):
            assert places.probe(path) == "Read-only file system"
        missing = str(tmp_path / "nowhere" / "scratch")
        assert places.probe(missing) == "No such file or directory"
        assert not Path(missing).parent.exists()

    def test_full_place_is_unfit(self, places: Workspace, tmp_path: Path) -> None:
        with ram_disk(tmp_path / "small", 1 << 20) as small:
            (small / "all").write_bytes(bytes(1 << 20))
            assert places.probe(str(small / "scratch")) == "No space left on device"
            assert [p.name for p in small.iterdir()] == ["all"]

    def test_room_is_that_of_the_file_system_the_scratch_goes_to(
        self, places: Workspace, disk: str, tmp_path: Path
    ) -> None:
        with ram_disk(tmp_path / "small", 1 << 20) as small:
            path = small / "scratch"
            room = places.room(str(path))
            assert (room.free, room.total, room.device) == (1 << 20, 1 << 20, small.stat().st_dev)
            assert places.used(str(path)) == 0
            path.write_bytes(bytes(200_000))
            assert places.used(str(path)) == 200_000
            left = places.room(str(path)).free
            assert room.free - 300_000 < left <= room.free - 200_000
        with pytest.raises(ScratchUnfit):
            places.room(str(tmp_path / "nowhere" / "scratch"))

    def test_probe_that_was_killed_is_cleaned_up_with_the_scratch(
        self, places: Workspace, disk: str
    ) -> None:
        path = places.scratch_path(disk, NONCE, "vda")
        left = Path(f"{path}.probe")
        left.touch()
        assert places.probe(path) == "File exists"
        places.remove(path, NONCE)
        assert not left.exists()

    def test_links_and_folders_of_that_name_are_kept(
        self, places: Workspace, disk: str, there: Callable[[str], bool]
    ) -> None:
        link, folder = (places.scratch_path(disk, NONCE, target) for target in ("vda", "vdb"))
        Path(link).symlink_to(disk)
        Path(folder).mkdir()
        for path in (link, folder):
            places.remove(path, NONCE)
            assert there(path)
        assert there(disk)

    def test_disk_without_a_folder_gets_scratch_in_the_fallback(
        self, places: Workspace, tmp_path: Path
    ) -> None:
        for disk in ("/dev/null", str(tmp_path), str(tmp_path / "missing" / "vda.raw")):
            path = Path(places.scratch_path(disk, NONCE, "vda"))
            assert path.parent == tmp_path / "fallback"
