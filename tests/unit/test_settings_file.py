"""The file of the settings: written only on change, whole or not at all, never lost."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from vm_babysitter.config.document import encode
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import (
    Damaged,
    InvalidSettings,
    SettingsChanged,
    SettingsFailed,
    UnsupportedFormat,
)

STORE = {"path": "/mnt/x", "id": "i", "filesystem": "f"}


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    return SettingsFile(tmp_path / "plugins" / "settings.json")


def write(file: SettingsFile, content: bytes | dict[str, Any]) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def stamp(file: SettingsFile) -> tuple[int, int]:
    found = file.path.stat()
    return found.st_ino, found.st_mtime_ns


def kept(file: SettingsFile) -> list[bytes]:
    """Return the damaged files that lie beside the settings."""
    found = file.path.parent.glob("settings.json.damaged-*")
    return sorted(path.read_bytes() for path in found)


def test_no_file_means_the_defaults_and_not_set_up(file: SettingsFile) -> None:
    loaded = file.load()
    assert loaded.settings == Settings()
    assert not loaded.is_set_up
    assert loaded.tag == file.tag() != ""
    assert not file.path.parent.exists()


def test_what_was_saved_is_loaded(file: SettingsFile) -> None:
    raw = {"version": 1, "store": {"path": "/mnt/x/"}, "backup": {"limit": "1 MiB"}, "new": [1]}
    saved = file.save(raw, file.load().tag)
    assert saved.settings is not None
    loaded = file.load()
    assert loaded.settings == saved.settings
    assert loaded.is_set_up
    assert loaded.document == {
        "version": 1,
        "store": {"path": "/mnt/x"},
        "backup": {"limit": 1 << 20},
        "new": [1],
    }
    assert [note.path for note in loaded.checked.notes] == ["new"]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_that_is_there_already(file: SettingsFile) -> None:
    raw = {"version": 1, "store": {"path": "/mnt/x"}, "log": {"level": "info", "files": 3}}
    file.save(raw, None)
    before = stamp(file)
    file.save({"log": {"files": 3, "level": "info"}, **raw}, file.tag())
    assert stamp(file) == before
    file.save({**raw, "log": {"files": 4}}, file.tag())
    assert stamp(file) != before


def test_saving_what_holds_without_a_file_makes_one(file: SettingsFile) -> None:
    file.save({"version": 1}, file.tag())
    assert json.loads(file.path.read_bytes()) == {"version": 1}


def test_nothing_wrong_is_saved(file: SettingsFile) -> None:
    file.save({"version": 1, "log": {"files": 3}}, None)
    before = file.path.read_bytes()
    checked = file.save({"version": 1, "log": {"files": 1}, "backup": {"limit": "x"}}, None)
    assert [error.path for error in checked.errors] == ["log.files", "backup.limit"]
    assert file.path.read_bytes() == before


def test_two_who_change_the_same_settings_do_not_undo_each_other(file: SettingsFile) -> None:
    tag = file.tag()
    file.save({"version": 1, "log": {"files": 3}}, tag)
    with pytest.raises(SettingsChanged):
        file.save({"version": 1, "log": {"files": 4}}, tag)
    assert file.load().settings.log.files == 3
    file.save({"version": 1, "log": {"files": 4}}, None)
    assert file.load().settings.log.files == 4


def test_of_many_at_once_one_wins(file: SettingsFile) -> None:
    tag, won = file.tag(), []
    start = threading.Barrier(8)

    def one(files: int) -> None:
        start.wait()
        try:
            file.save({"version": 1, "log": {"files": files}}, tag)
        except SettingsChanged:
            return
        won.append(files)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [file.load().settings.log.files]


DAMAGED = [
    b"",
    b"{",
    b"\0" * 100,
    b"\xff\xfe",
    b"[]",
    b"7",
    b'{"version": 1} x',
    b'{"version": 1, "log": {"files": 3}, "log": {}}',
    b'{"version": 1, "x": NaN}',
    b"{}",
    b'{"version": null}',
    b'{"version": 0}',
    b'{"version": true}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:20]))
def test_a_damaged_file_is_an_error_and_stays(file: SettingsFile, content: bytes) -> None:
    write(file, content)
    for use in (file.load, file.export, lambda: file.change({("store", "id"): "x"})):
        with pytest.raises(Damaged) as caught:
            use()
        assert caught.value.hint
    assert file.path.read_bytes() == content
    assert file.tag() == ""


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:20]))
def test_a_damaged_file_is_kept_when_settings_are_saved_anew(
    file: SettingsFile, content: bytes
) -> None:
    write(file, content)
    file.save({"version": 1, "log": {"files": 3}}, file.tag())
    assert file.load().settings.log.files == 3
    assert kept(file) == [content]


def test_each_damaged_file_is_kept_once(file: SettingsFile) -> None:
    for content in (b"a", b"b", b"b"):
        write(file, content)
        file.save({"version": 1}, "")
    assert kept(file) == [b"a", b"b"]
    assert len(list(file.path.parent.iterdir())) == 3


def test_who_knew_settings_does_not_overwrite_damaged_ones(file: SettingsFile) -> None:
    tag = file.tag()
    write(file, b"{")
    with pytest.raises(SettingsChanged):
        file.save({"version": 1}, tag)
    assert file.path.read_bytes() == b"{"


def test_a_save_that_fails_leaves_the_old_settings(file: SettingsFile) -> None:
    write(file, b"damaged")
    (file.path.parent / ".settings.json.tmp").mkdir()  # nothing can be written there
    with pytest.raises(SettingsFailed):
        file.save({"version": 1}, None)
    assert file.path.read_bytes() == b"damaged"
    assert kept(file) == [b"damaged"]


def test_a_mark_that_windows_puts_in_front_does_not_matter(file: SettingsFile) -> None:
    write(file, b'\xef\xbb\xbf{"version": 1,\r\n"log": {"files": 3}}')
    assert file.load().settings.log.files == 3


def test_values_that_are_wrong_in_the_file_are_all_told(file: SettingsFile) -> None:
    content = {"version": 1, "log": {"files": 0}, "backup": {"parallel": "many"}}
    write(file, content)
    with pytest.raises(InvalidSettings) as caught:
        file.load()
    assert caught.value.count == 2
    assert "log.files: 0 must be" in str(caught.value)
    assert 'backup.parallel: "many" must be' in str(caught.value)
    assert file.tag()
    file.save({"version": 1}, file.tag())
    assert file.load().settings == Settings()


def test_settings_of_a_newer_version_name_those_kept_from_before_it(file: SettingsFile) -> None:
    write(file, {"version": 99})
    file.path.with_name("settings.json.version-1").write_text("{}")
    with pytest.raises(UnsupportedFormat, match=r"put settings\.json\.version-1, kept"):
        file.load()


def test_settings_of_a_newer_version_are_refused_and_never_overwritten(file: SettingsFile) -> None:
    write(file, {"version": 2, "log": {"files": "new words"}})
    before = file.path.read_bytes()
    for use in (file.load, file.tag, file.export, lambda: file.save({"version": 1}, None)):
        with pytest.raises(UnsupportedFormat) as caught:
            use()
        assert (caught.value.found, caught.value.known) == (2, 1)
    assert file.path.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_an_error(file: SettingsFile, kind: str) -> None:
    file.path.parent.mkdir()
    if kind == "folder":
        file.path.mkdir()
    elif kind == "pipe":
        os.mkfifo(file.path)
    else:
        file.path.symlink_to(file.path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for use in (file.load, lambda: file.save({"version": 1}, None)):
        with pytest.raises((SettingsFailed, Damaged)):
            use()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not file.path.is_file()


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsFailed):
        SettingsFile(tmp_path / "file" / "settings.json").save({"version": 1}, None)


def test_single_values_are_changed_and_the_rest_stays(file: SettingsFile) -> None:
    file.save({"version": 1, "store": {"path": "/mnt/x"}, "new": 1}, None)
    file.change({("store", "id"): "i", ("store", "filesystem"): "f", ("vms", "seen"): ["u"]})
    assert file.load().document == {
        "version": 1,
        "store": {"path": "/mnt/x", "id": "i", "filesystem": "f"},
        "new": 1,
        "vms": {"seen": ["u"]},
    }


def test_a_change_that_is_wrong_is_not_made(file: SettingsFile) -> None:
    file.save({"version": 1, "log": {"files": 3}}, None)
    assert file.change({("log", "files"): 0}).errors
    assert file.load().settings.log.files == 3


@pytest.mark.parametrize(
    ("store", "kept"),
    [
        ({**STORE, "path": "/mnt/y"}, {"path": "/mnt/y", "id": "", "filesystem": ""}),
        ({**STORE, "path": "/mnt/y", "id": "j"}, {"path": "/mnt/y", "id": "j", "filesystem": ""}),
        ({"path": "/mnt/y"}, {"path": "/mnt/y"}),
        (STORE, STORE),
        ({**STORE, "id": "j"}, {**STORE, "id": "j"}),
    ],
)
def test_what_was_noted_about_a_folder_is_forgotten_with_it(
    file: SettingsFile, store: dict[str, str], kept: dict[str, str]
) -> None:
    file.save({"version": 1, "store": STORE}, None)
    saved = file.save({"version": 1, "store": store}, None)
    assert file.load().document["store"] == kept
    assert saved.settings == file.load().settings


def test_what_is_exported_can_be_imported_elsewhere(file: SettingsFile, tmp_path: Path) -> None:
    raw = {"version": 1, "store": STORE, "per_vm": {"ü": {}}, "new": {"a": 1}}
    file.save(raw, None)
    other = SettingsFile(tmp_path / "other.json")
    assert not other.take_in(file.export(), other.tag()).errors
    assert other.load().document == file.load().document
    assert other.path.read_bytes() == file.path.read_bytes() == encode(raw)


@pytest.mark.parametrize("content", [*DAMAGED, b'{"version": 2}', b" " * (5 << 20)])
def test_what_is_no_settings_is_not_imported(file: SettingsFile, content: bytes) -> None:
    file.save({"version": 1, "log": {"files": 3}}, None)
    with pytest.raises((Damaged, UnsupportedFormat)):
        file.take_in(content, None)
    assert file.load().settings.log.files == 3


def test_of_an_import_with_a_mistake_nothing_is_applied(file: SettingsFile) -> None:
    file.save({"version": 1, "log": {"files": 3}}, None)
    content = b'{"version": 1, "log": {"files": 4}, "backup": {"parallel": 0}}'
    assert [error.path for error in file.take_in(content, None).errors] == ["backup.parallel"]
    assert file.load().settings.log.files == 3
