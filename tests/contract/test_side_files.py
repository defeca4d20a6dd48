"""Small files beside a VM's disks are read with care: nothing there is trusted, nothing fails."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nbd_server import open_descriptors
from vm_babysitter.adapters.side_files import MAX_FILES, LocalSideFiles
from vm_babysitter.ports import SideContent, SideFiles

LIMIT = 1000


@pytest.fixture
def side_files() -> SideFiles:
    return LocalSideFiles()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that has any name."""
    place = tmp_path / 'it\'s "the" <place>, ü: $(touch x)'
    place.mkdir()
    return place


def read(side_files: SideFiles, path: Path, *, folder: bool = False) -> SideContent:
    return side_files.read(str(path), LIMIT, folder=folder)


def put(place: Path, **files: bytes) -> None:
    for name, content in files.items():
        (place / name).write_bytes(content)


def test_a_file_is_read_whatever_it_is_called(side_files: SideFiles, place: Path) -> None:
    path = place / "-rf, 'x\" 日本\n"
    path.write_bytes(b"x" * LIMIT)
    assert read(side_files, path) == SideContent((("", b"x" * LIMIT),))


def test_an_empty_file_is_read(side_files: SideFiles, place: Path) -> None:
    put(place, empty=b"")
    assert read(side_files, place / "empty") == SideContent((("", b""),))


def test_a_folder_is_read_by_name_without_what_is_hidden(
    side_files: SideFiles, place: Path
) -> None:
    put(place, b=b"2", a=b"1", C=b"")
    put(place, **{".lock": b"x", "tpm2-00.permall": b"sealed"})
    expected = (("C", b""), ("a", b"1"), ("b", b"2"), ("tpm2-00.permall", b"sealed"))
    assert read(side_files, place, folder=True) == SideContent(expected)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_big(path: Path) -> None:
    path.write_bytes(b"x" * (LIMIT + 1))


def make_huge_and_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


UNFIT: dict[Callable[[Path], None], str] = {
    make_link: "is a link, which is not followed",
    make_dangling_link: "is a link, which is not followed",
    os.mkfifo: "is no plain file",
    make_socket: "is no plain file",
    Path.mkdir: "is no plain file",
    make_big: "is larger than 1000 bytes",
    make_huge_and_sparse: "is larger than 1000 bytes",
}


@pytest.mark.parametrize("make", UNFIT)
def test_what_is_no_small_plain_file_is_a_problem(
    side_files: SideFiles, place: Path, make: Callable[[Path], None]
) -> None:
    make(place / "it")
    put(place, other=b"1")
    path = place / "it"
    alone = read(side_files, path)
    assert alone == SideContent(problems=(f"{str(path)!r} {UNFIT[make]}",))
    among = read(side_files, place, folder=True)
    assert among.files == (("other", b"1"),)
    assert among.problems == alone.problems


def test_a_device_is_not_even_opened(side_files: SideFiles) -> None:
    assert "is no plain file" in read(side_files, Path("/dev/zero")).problems[0]


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_missing_is_a_problem(side_files: SideFiles, place: Path, folder: bool) -> None:
    path = place / "missing"
    expected = f"{str(path)!r}: No such file or directory"
    assert read(side_files, path, folder=folder) == SideContent(problems=(expected,))


def test_a_folder_that_is_a_link_or_none_is_a_problem(side_files: SideFiles, place: Path) -> None:
    put(place, file=b"1")
    (place / "link").symlink_to(place)
    for name in ("file", "link"):
        content = read(side_files, place / name, folder=True)
        assert (content.files, len(content.problems)) == ((), 1)


def test_an_empty_folder_is_a_problem(side_files: SideFiles, place: Path) -> None:
    put(place, **{".lock": b""})
    assert read(side_files, place, folder=True).problems == (f"{str(place)!r} is empty",)


@pytest.mark.parametrize("name", ["a b", "ü", "-rf", "a\nb", "a'b", "x" * 201, "\udcff"])
def test_a_file_of_an_odd_name_is_left_out(side_files: SideFiles, place: Path, name: str) -> None:
    put(place, fine=b"1", **{name: b"2"})
    content = read(side_files, place, folder=True)
    assert content.files == (("fine", b"1"),)
    assert "has an unusual name" in content.problems[0]
    content.problems[0].encode()  # can be printed and stored


def test_a_folder_with_too_much_is_left_out_as_a_whole(side_files: SideFiles, place: Path) -> None:
    put(place, a=b"x" * 600, b=b"y" * 401)
    content = read(side_files, place, folder=True)
    assert content.files == ()
    assert "holds more than 1000 bytes" in content.problems[0]


def test_a_folder_of_too_many_files_is_left_out_as_a_whole(
    side_files: SideFiles, place: Path
) -> None:
    put(place, **{f"f{n}": b"" for n in range(MAX_FILES + 1)})
    content = read(side_files, place, folder=True)
    assert content.files == ()
    assert f"holds more than {MAX_FILES} files" in content.problems[0]


def test_nothing_is_left_open(side_files: SideFiles, place: Path) -> None:
    put(place, a=b"1", big=b"x" * (LIMIT + 1))
    before = open_descriptors()
    for _ in range(3):
        read(side_files, place, folder=True)
        read(side_files, place / "big")
        read(side_files, place / "missing")
    assert open_descriptors() == before
