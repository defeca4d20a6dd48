"""Backups go where they were set up to go, and only while there is room."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.store_place import GIB, MARKED, NOTHING, UNMARKED, FakeStorePlace
from tests.support.settings import STORE, configured, write
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.domain.errors import StoreFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.store_standing import FoundStore
from vm_babysitter.service.store_guard import StoreGuard

KNOWN = {"path": STORE, "id": MARKED.id, "filesystem": MARKED.filesystem}
OTHER = FoundStore(there=True, id="store-2", filesystem=MARKED.filesystem)
IN_RAM = FoundStore(there=True, filesystem="rootfs rootfs at /")


class Stage:
    """A guard, what it looks at, and what it tells."""

    def __init__(self, file: Path, **store: Any) -> None:
        self.file = file
        self.place = FakeStorePlace()
        self.configuration = configured(file, store=store or KNOWN)
        self.guard = StoreGuard(self.configuration, self.place.find, self.place.room, FakeClock())
        self.events: list[Event] = []
        self.guard.tell = self.events.append

    def noted(self) -> tuple[str, str]:
        """Return what the file says."""
        store = SettingsFile(self.file).load().settings.store
        return store.id, store.filesystem

    def told(self) -> list[str]:
        return [event.code for event in self.events]


@pytest.fixture
def file(ram_path: Path) -> Path:
    return ram_path / "settings.json"


def test_none_is_set_up(file: Path) -> None:
    stage = Stage(file, path="")
    assert stage.guard.hindrance() == "no backup folder is set up"
    assert stage.guard.lack_of_room() == ""
    stage.guard.note()
    assert (stage.told(), stage.guard.path) == ([], None)


def test_the_right_one_is_no_hindrance(file: Path) -> None:
    stage = Stage(file)
    assert stage.guard.hindrance() == ""
    assert stage.told() == []


@pytest.mark.parametrize(
    ("found", "code"),
    [(NOTHING, "store-away"), (IN_RAM, "store-away"), (OTHER, "store-other")],
)
def test_backups_wait_for_it_and_that_is_told_once(
    file: Path, found: FoundStore, code: str
) -> None:
    stage = Stage(file)
    stage.place.found = found
    for _ in range(3):
        assert STORE in stage.guard.hindrance()
    assert (stage.told(), stage.guard.troubles()) == ([code], (code,))
    assert stage.events[0].severity is Severity.ALERT
    stage.guard.note()
    assert stage.noted() == (MARKED.id, MARKED.filesystem)
    stage.place.found = MARKED
    assert stage.guard.hindrance() == ""
    assert stage.guard.troubles() == ()
    stage.place.found = found
    assert stage.guard.hindrance()
    assert stage.told() == [code, "store-back", code]
    assert stage.events[1].severity is Severity.NORMAL
    assert "\n" in stage.events[0].text, "there is something to do about it"


def test_a_disk_that_comes_a_moment_after_the_array_is_not_told_of(file: Path) -> None:
    stage, clock = Stage(file), FakeClock()
    guard = StoreGuard(
        stage.configuration, stage.place.find, stage.place.room, clock, timedelta(minutes=3)
    )
    guard.tell = stage.events.append
    stage.place.found = NOTHING
    assert guard.hindrance()
    assert (stage.told(), guard.troubles()) == ([], ("store-away",))
    stage.place.found = MARKED
    assert (guard.hindrance(), stage.told(), guard.troubles()) == ("", [], ())
    stage.place.found = NOTHING
    guard.hindrance()
    clock.advance(181)
    assert guard.hindrance()
    assert stage.told() == ["store-away"]


def test_one_that_cannot_be_looked_at_is_told_once(file: Path) -> None:
    stage = Stage(file)
    stage.place.error = StoreFailed(STORE, "Stale file handle")
    assert "Stale file handle" in stage.guard.hindrance()
    assert stage.guard.hindrance()
    assert (stage.told(), stage.guard.troubles()) == (["store-failed"], ("store-failed",))
    stage.guard.note()  # does not fail
    stage.place.error, stage.place.found = None, NOTHING
    assert stage.guard.hindrance()
    assert stage.guard.troubles() == ("store-away",)


def test_a_new_one_is_noted_once_it_is_one(file: Path) -> None:
    stage = Stage(file, path=STORE)
    stage.place.found = UNMARKED
    assert stage.guard.hindrance() == ""
    stage.guard.note()
    assert stage.noted() == ("", "")
    stage.place.found = MARKED
    stage.guard.note()
    assert stage.noted() == (MARKED.id, MARKED.filesystem)
    assert stage.told() == []


def test_a_disk_that_has_another_name_is_noted(file: Path) -> None:
    stage = Stage(file)
    stage.place.found = FoundStore(there=True, id=MARKED.id, filesystem="xfs /dev/sdz at /b")
    stage.guard.note()
    assert stage.noted() == (MARKED.id, "xfs /dev/sdz at /b")


def test_one_that_was_emptied_is_told_once_and_taken_for_a_new_one(file: Path) -> None:
    stage = Stage(file)
    stage.place.found = UNMARKED
    assert [stage.guard.hindrance() for _ in range(3)] == ["", "", ""]
    assert stage.told() == ["store-renewed"]
    assert stage.noted() == ("", MARKED.filesystem)
    # While the first backup into it runs, others find its new mark already.
    stage.place.found = OTHER
    assert stage.guard.hindrance() == ""
    stage.guard.note()
    assert stage.noted() == (OTHER.id, OTHER.filesystem)
    assert stage.told() == ["store-renewed"]


def test_one_that_was_emptied_is_still_known_by_its_file_system(file: Path) -> None:
    stage = Stage(file)
    stage.place.found = UNMARKED
    stage.guard.hindrance()
    stage.place.found = IN_RAM
    assert "not there" in stage.guard.hindrance()


def test_one_that_comes_back_empty_is_not_told_to_be_all_right(file: Path) -> None:
    stage = Stage(file)
    stage.place.found = NOTHING
    stage.guard.hindrance()
    stage.place.found = UNMARKED
    assert stage.guard.hindrance() == ""
    assert stage.told() == ["store-away", "store-renewed"]


def test_what_was_found_is_not_noted_of_a_folder_that_was_named_meanwhile(file: Path) -> None:
    stage = Stage(file, path="/old")
    find = stage.place.find

    def slow(path: Path) -> FoundStore:
        found = find(path)
        write(file, store={"path": "/new"})
        stage.configuration.refresh()
        return found

    guard = StoreGuard(stage.configuration, slow, stage.place.room, FakeClock())
    guard.note()
    assert stage.noted() == ("", "")


def test_what_cannot_be_noted_makes_no_backup_fail(file: Path) -> None:
    stage = Stage(file, path=STORE)
    stage.file.unlink()
    stage.file.mkdir()
    stage.guard.note()
    assert stage.guard.hindrance() == ""


def test_space_is_told_of_once_and_ends_by_itself(file: Path) -> None:
    stage = Stage(file)
    assert stage.guard.lack_of_room() == ""
    stage.place.free = 40 * GIB
    assert [stage.guard.lack_of_room() for _ in range(2)] == ["", ""]
    assert (stage.told(), stage.events[0].severity) == (["store-low"], Severity.WARNING)
    for free in (9, 8):  # the words stay: a job that waits is written down when they change
        stage.place.free = free * GIB
        assert stage.guard.lack_of_room().endswith(": 10 GiB have to be free")
    assert (stage.told(), stage.events[1].severity) == (["store-low", "store-full"], Severity.ALERT)
    stage.place.free = 500 * GIB
    assert [stage.guard.lack_of_room() for _ in range(2)] == ["", ""]
    assert stage.guard.troubles() == ()
    assert stage.told() == ["store-low", "store-full", "store-room"]


def test_space_that_goes_up_and_down_around_a_limit_is_told_of_once(file: Path) -> None:
    stage = Stage(file)
    for _ in range(3):
        stage.place.free = int(9.9 * GIB)
        assert stage.guard.lack_of_room()
        stage.place.free = int(10.1 * GIB)
        assert stage.guard.lack_of_room() == ""
        assert stage.guard.troubles() == ("store-low",)
    assert stage.told() == ["store-full", "store-low"]
    stage.place.free = 12 * GIB
    assert stage.guard.lack_of_room() == ""
    assert stage.told() == ["store-full", "store-low", "store-room"]
    stage.place.free = 9 * GIB
    assert stage.guard.lack_of_room()
    assert stage.told()[3:] == ["store-full"]


def test_space_that_cannot_be_told(file: Path) -> None:
    stage = Stage(file)
    stage.place.unknown = OSError(5, "Input/output error")
    assert "Input/output error" in stage.guard.lack_of_room()


def test_zero_is_no_limit(file: Path) -> None:
    stage = Stage(file)
    write(file, store=KNOWN, space={"warn_free": 0, "stop_free": 0})
    stage.configuration.refresh()
    stage.place.free = 0
    assert stage.guard.lack_of_room() == ""
    assert stage.told() == []


def test_what_was_told_of_another_folder_is_forgotten(file: Path) -> None:
    stage = Stage(file)
    stage.place.found, stage.place.free = NOTHING, 0
    stage.guard.hindrance()
    stage.guard.lack_of_room()
    write(file, store={"path": "/elsewhere"})
    stage.configuration.refresh()
    stage.place.found = MARKED
    assert stage.guard.hindrance() == ""
    assert stage.guard.troubles() == ()
