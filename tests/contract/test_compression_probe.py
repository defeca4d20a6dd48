"""Which compression is chosen on a host."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.images import FakeImageTool
from tests.support.fakes.observer import RecordingObserver
from tests.support.no_zstd import without_zstd
from vm_babysitter.adapters.qemu.compression import Zlib, Zstd
from vm_babysitter.adapters.qemu.compression_probe import choose_compression, why_not
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.domain.errors import ImageUnreadable
from vm_babysitter.ports import ImageTool


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; none may be left."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    if folder.exists():
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("images", [QemuImageTool(), FakeImageTool()])
def test_zstd_is_chosen_where_it_is_read(images: ImageTool) -> None:
    observer = RecordingObserver()
    assert isinstance(choose_compression(images, observer), Zstd)
    assert observer.notes == []
    assert why_not(Zlib(), images) == ""


def chosen(images: ImageTool) -> str:
    """Choose zlib; return what the user is told."""
    observer = RecordingObserver()
    assert isinstance(choose_compression(images, observer), Zlib)
    (note,) = observer.notes
    assert note.endswith("zlib is used instead, which takes more time.")
    return note


def test_a_qemu_without_zstd_makes_it_zlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", without_zstd(tmp_path / "bin"))
    assert "unknown compression type" in chosen(QemuImageTool())
    assert why_not(Zlib(), QemuImageTool()) == ""


def test_an_image_that_is_read_wrongly_makes_it_zlib() -> None:
    images = FakeImageTool()
    images.lies[100] = 0
    assert "it reads something else" in chosen(images)
    images = FakeImageTool()
    images.missing = 512
    assert "it reads something else" in chosen(images)


def test_an_image_that_is_not_clean_or_not_opened_makes_it_zlib() -> None:
    images = FakeImageTool()
    images.fail["check"] = ImageUnreadable("/x", "it is odd")
    assert "it is odd" in chosen(images)
    images = FakeImageTool()
    images.fail["open_for_reading"] = ImageUnreadable("/x", "it is odder")
    assert "it is odder" in chosen(images)


def test_missing_programs_and_no_place_for_a_file_make_it_zlib(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "qemu-img" in chosen(QemuImageTool())
    temporary.rmdir()
    assert "No such file" in chosen(QemuImageTool())
