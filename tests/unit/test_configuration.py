"""The settings that hold, and who hears of others."""

import threading
from pathlib import Path

import pytest

from tests.support.settings import configured, write
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.domain.errors import SettingsChanged
from vm_babysitter.service.configuration import Configuration


@pytest.fixture
def file(ram_path: Path) -> Path:
    return ram_path / "settings.json"


def heard(configuration: Configuration) -> list[str]:
    """Return what listeners hear: the backup folder each time."""
    paths: list[str] = []
    configuration.on_change(lambda: paths.append(configuration.settings.store.path))
    return paths


def test_without_a_file_nothing_is_set_up(file: Path) -> None:
    found = Configuration(SettingsFile(file))
    found.load()
    assert (found.settings.store.path, found.problem) == ("", None)
    assert not file.exists()


def test_saved_ones_hold_and_are_told(file: Path) -> None:
    found = configured(file)
    told = heard(found)
    checked = found.save({"version": 1, "store": {"path": "/b"}}, None, None)
    assert not checked.errors
    assert (told, found.settings.store.path) == (["/b"], "/b")


def test_wrong_ones_are_neither_saved_nor_told(file: Path) -> None:
    found = configured(file, store={"path": "/a"})
    told = heard(found)
    assert found.save({"version": 1, "store": {"path": 7}}, None, None).errors
    with pytest.raises(SettingsChanged):
        found.save({"version": 1}, "another tag", None)
    assert (told, found.settings.store.path, found.problem) == ([], "/a", None)


def test_a_broken_file_is_corrected_with_an_editor(file: Path) -> None:
    file.write_text("{")
    found = Configuration(SettingsFile(file))
    told = heard(found)
    found.load()
    assert found.problem is not None
    assert found.loaded is None
    found.refresh()
    assert told == [""]  # nothing is new
    write(file, store={"path": "/b"})
    found.refresh()
    assert told == ["", "/b"]
    assert found.problem is None


def test_what_was_right_last_holds_while_the_file_is_broken(file: Path) -> None:
    found = configured(file, store={"path": "/a"})
    told = heard(found)
    file.write_text("{")
    found.refresh()
    assert found.problem is not None
    assert (told, found.settings.store.path) == (["/a"], "/a")
    found.change({("store", "id"): "x"})
    assert file.read_text() == "{"  # left to whoever edits it


def test_a_change_that_is_about_other_settings_is_let_go(file: Path) -> None:
    found = configured(file, store={"path": "/a"})
    known = found.settings.store
    write(file, store={"path": "/b"})
    found.change({("store", "id"): "of /a"}, still=lambda now: now.store == known)
    assert (found.settings.store.path, found.settings.store.id) == ("/b", "")
    found.change({("store", "id"): "of /b"}, still=lambda now: now.store.path == "/b")
    assert SettingsFile(file).load().settings.store.id == "of /b"


def test_a_listener_that_fails_spares_the_others(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = configured(file)

    def fails() -> None:
        raise OSError("no space for the log")

    found.on_change(fails)
    told = heard(found)
    found.save({"version": 1, "store": {"path": "/b"}}, None, None)
    assert told == ["/b"]
    assert "no space for the log" in caplog.text


def test_a_listener_that_changes_settings_is_told_of_that_too(file: Path) -> None:
    found = configured(file, store={"path": "/a"})
    found.on_change(lambda: found.change({("store", "id"): "x"}))
    told = heard(found)
    found.load()
    assert told == ["/a", "/a"]
    assert found.settings.store.id == "x"


def test_the_newest_settings_are_heard_last(file: Path) -> None:
    found = configured(file, store={"path": "/0"})
    slow, saved, heard_of = threading.Event(), threading.Event(), list[str]()

    def listener() -> None:
        path = found.settings.store.path
        if path == "/1":
            slow.set()
            saved.wait(10)
        heard_of.append(path)

    found.on_change(listener)
    save = found.save
    first = threading.Thread(
        target=save, args=({"version": 1, "store": {"path": "/1"}}, None, None)
    )
    first.start()
    assert slow.wait(10)
    second = threading.Thread(
        target=save, args=({"version": 1, "store": {"path": "/2"}}, None, None)
    )
    second.start()
    while found.settings.store.path != "/2":
        second.join(0.001)
    second.join(0.05)  # it has to wait for the first to be heard
    saved.set()
    for thread in (first, second):
        thread.join(10)
    assert heard_of == ["/1", "/2"]
