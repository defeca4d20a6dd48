"""Files that are there whole or not at all, wherever the process is killed."""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.lib import atomicfile
from vm_babysitter.lib.atomicfile import fsync_directory, write_atomically, write_new

OLD, NEW = b"old", b"new" * 1000


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_and_replaced_with_nothing_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "it's a {file}.json"
    write_atomically(path, OLD)
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == [path.name]


@given(st.binary(max_size=5000))
def test_any_content_comes_back(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    write_atomically(path, content)
    assert path.read_bytes() == content


def test_files_are_for_their_owner_only_unless_told_otherwise(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", OLD)
    write_new(tmp_path / "b", OLD)
    write_atomically(tmp_path / "c", OLD, mode=0o640)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in "abc"]
    assert modes == [0o600, 0o600, 0o640]


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_new(path, NEW)
    with pytest.raises(FileExistsError):
        write_new(path, OLD)
    assert path.read_bytes() == NEW


def test_what_a_crash_left_beside_the_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"x" * 9999)
    write_atomically(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_that_lies_where_the_file_is_begun_leads_to_nothing(
    tmp_path: Path, link: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    getattr(tmp_path / ".file.tmp", link)(victim)
    write_atomically(tmp_path / "file", NEW)
    assert (victim.read_bytes(), (tmp_path / "file").read_bytes()) == (OLD, NEW)
    assert not (tmp_path / "file").is_symlink()
    assert names(tmp_path) == ["file", "victim"]


@contextmanager
def files_end_at(limit: int) -> Iterator[None]:
    """Have the kernel refuse every write beyond ``limit`` bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, OLD)
    with files_end_at(100), pytest.raises(OSError, match="too large"):
        write_atomically(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_a_rename_that_fails_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "file", NEW)
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "gone" / "file", NEW)
    with pytest.raises(FileNotFoundError):
        fsync_directory(tmp_path / "gone")
    write_new(tmp_path / "file", NEW)
    with pytest.raises(NotADirectoryError):
        fsync_directory(tmp_path / "file")


def killed_at(line: int, action: Callable[[], None]) -> bool:
    """Run ``action`` in a process that is killed before the n-th line of our module.

    Returns whether it came so far; else the action was completed.
    """
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != atomicfile.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_anywhere_the_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = []
    line = 0
    while True:
        write_atomically(path, OLD)
        killed = killed_at(line, lambda: write_atomically(path, NEW))
        seen.append(path.read_bytes())
        assert set(names(tmp_path)) <= {"file", ".file.tmp"}
        if not killed:
            break
        line += 1
    assert line > 10
    assert set(seen) == {OLD, NEW}
    assert seen == sorted(seen, key=lambda content: content == NEW)
    assert seen[-1] == NEW
    assert names(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path,
) -> None:
    called = []

    def profile(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function in {os.open, os.write, os.fsync, os.rename}:
            called.append(function.__name__)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        write_atomically(tmp_path / "file", NEW)
    finally:
        sys.setprofile(before)
    assert called == ["open", "write", "fsync", "rename", "open", "fsync"]
