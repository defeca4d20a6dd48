"""A restore's folder is filled wholly or not at all, and nothing of anybody else's is touched."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mounts import ram_disk
from vm_babysitter.adapters.restore_place import EmptyDirectory
from vm_babysitter.domain.errors import Cancelled, InvalidInput, NotEnoughSpace, StoreFailed
from vm_babysitter.ports import RestoreFiles, RestorePlace

NAMES = ("vda.qcow2", "-vdb: raw.raw", "domain.xml")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to restore to; not there yet."""
    return tmp_path / "restored: 'here', ü"


def place(path: Path) -> RestorePlace:
    return EmptyDirectory(path)


def write_all(files: RestoreFiles) -> list[Path]:
    """Write a file of each name; return what they are going to be called."""
    finals = []
    for name in NAMES:
        path = files.begin(name)
        path.write_bytes(name.encode())
        finals.append(files.final(path))
    return finals


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder."""
    return {p.name: p.read_bytes() if p.is_file() else b"?" for p in folder.iterdir()}


def fill(path: Path, action: Callable[[RestoreFiles], object]) -> None:
    """Restore to a folder; ``action`` comes when all is written."""
    with place(path).fill(1) as files:
        write_all(files)
        action(files)


WHOLE = {name: name.encode() for name in NAMES}


@pytest.mark.parametrize("exists", [False, True])
def test_files_have_their_names_in_the_end_and_not_before(target: Path, exists: bool) -> None:
    if exists:
        target.mkdir()
    with place(target).fill(1) as files:
        finals = write_all(files)
        assert finals == [target / name for name in NAMES]
        assert not any(path.exists() for path in finals)
    assert content(target) == WHOLE


def test_copied_file_is_for_its_owner_only(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"secret")
    source.chmod(0o644)
    with place(target).fill(1) as files:
        files.copy(source, files.begin("domain.xml"))
    assert content(target) == {"domain.xml": b"secret"}
    assert (target / "domain.xml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [Cancelled(), KeyError("bug"), KeyboardInterrupt()])
def test_error_in_the_middle_leaves_nothing(
    target: Path, exists: bool, error: BaseException
) -> None:
    if exists:
        target.mkdir()

    def fail(_files: RestoreFiles) -> None:
        raise error

    with pytest.raises(type(error)):
        fill(target, fail)
    assert target.exists() == exists
    assert not exists or content(target) == {}


def test_file_that_was_never_written_fails_the_whole(target: Path) -> None:
    with pytest.raises(StoreFailed):
        fill(target, lambda files: files.begin("never written"))
    assert not target.exists()


def put_file(path: Path) -> None:
    path.write_bytes(b"mine")


def put_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


def put_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("put", [put_file, put_dangling_link, put_folder])
def test_what_appears_meanwhile_under_a_name_is_kept_and_nothing_else_is_left(
    target: Path, name: str, put: Callable[[Path], None]
) -> None:
    with pytest.raises(StoreFailed):
        fill(target, lambda _: put(target / name))
    assert [path.name for path in target.iterdir()] == [name]
    put(target.parent / "reference")
    assert (target / name).lstat().st_mode == (target.parent / "reference").lstat().st_mode


def test_other_files_that_appear_meanwhile_are_kept(target: Path) -> None:
    def interfere(_files: RestoreFiles) -> None:
        (target / "notes.txt").write_bytes(b"mine")
        raise Cancelled

    with pytest.raises(Cancelled):
        fill(target, interfere)
    assert content(target) == {"notes.txt": b"mine"}


def test_second_restore_to_the_same_folder_is_refused_and_spoils_nothing(target: Path) -> None:
    both_looked = threading.Barrier(2, timeout=30)

    class Racing(EmptyDirectory):
        """Two of these find the folder empty at the same moment."""

        def _check(self, needed: int) -> None:
            super()._check(needed)
            both_looked.wait()

    filled: list[RestoreFiles] = []
    refused: list[InvalidInput] = []
    first_is_done = threading.Event()

    def restore() -> None:
        try:
            with Racing(target).fill(1) as files:
                write_all(files)
                filled.append(files)
                first_is_done.wait(30)
        except InvalidInput as error:
            refused.append(error)
            first_is_done.set()

    threads = [threading.Thread(target=restore) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(filled), len(refused)) == (1, 1)
    assert content(target) == WHOLE


def test_what_is_not_an_empty_folder_is_refused_untouched(target: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("/nowhere/at all")
    full = tmp_path / "full"
    full.mkdir()
    (full / ".hidden").write_bytes(b"mine")
    for path in (file, dangling, full, tmp_path / "missing" / "folder", file / "beneath"):
        with pytest.raises(InvalidInput) as caught, place(path).fill(1):
            pass
        assert caught.value.value == str(path)
    assert content(full) == {".hidden": b"mine"}
    assert file.read_bytes() == b"mine"
    assert not (tmp_path / "missing").exists()
    with pytest.raises(StoreFailed), place(tmp_path / ("x" * 300)).fill(1):
        pass


def test_link_to_an_empty_folder_is_that_folder(target: Path, tmp_path: Path) -> None:
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    with place(link).fill(1) as files:
        write_all(files)
    assert content(target) == WHOLE


@pytest.mark.parametrize("exists", [False, True])
def test_too_little_space_is_told_before_anything_is_made(target: Path, exists: bool) -> None:
    if exists:
        target.mkdir()
    with pytest.raises(NotEnoughSpace) as caught, place(target).fill(1 << 60):
        pass
    assert caught.value.needed == 1 << 60
    assert 0 < caught.value.free < 1 << 60
    assert target.exists() == exists


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with ram_disk(tmp_path / "small", 1 << 20) as folder:
        with pytest.raises(StoreFailed), place(folder / "new").fill(1) as files:
            files.begin("vda.raw").write_bytes(bytes(2 << 20))
        assert content(folder) == {}


@pytest.mark.parametrize("name", ["../escaped", "a/b", "", ".", "..", "unfinished.partial"])
def test_name_that_is_none_is_refused(target: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name of a file"), place(target).fill(1) as files:
        files.begin(name)
    assert not target.exists()


def test_a_file_system_that_does_not_tell_its_space_is_filled(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: silent)
    fill(target, lambda _files: None)
    assert content(target) == WHOLE
