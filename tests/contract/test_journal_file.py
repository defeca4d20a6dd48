"""The file of the journal: killed writers, damage, full and read-only disks, odd file systems."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import DONE, NOW, request
from tests.support.mounts import fuse, ram_disk, read_only
from vm_babysitter.adapters.sqlite import schema
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.adapters.sqlite.rows import moment
from vm_babysitter.domain.errors import JournalFailed
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import JobState, finish, transition
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.engine.steady_journal import SteadyJournal

NAME = "journal.sqlite"
EVENT = Event(NOW, "x", Severity.NORMAL, "x")
_REPOSITORY = Path(__file__).parents[2]
_KILLS = 200 if os.environ.get("VMB_SOAK") == "1" else 15
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def journal_in(folder: Path) -> SqliteJournal:
    return SqliteJournal(folder / NAME, FakeClock(NOW))


def mode_of(folder: Path) -> str:
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def filled(folder: Path, jobs: int = 300) -> SqliteJournal:
    """A journal of many pages, closed."""
    journal = journal_in(folder)
    journal.rebuild([])
    for number in range(jobs):
        made = journal.submit(request(f"vm{number}", options={"x": "y" * 200}), NOW)
        journal.finish(transition(made, JobState.CANCELLED, finished=NOW), [EVENT])
    journal.close()
    return journal


def test_what_was_kept_is_there_after_the_next_start(tmp_path: Path) -> None:
    made = journal_in(tmp_path).submit(request(), NOW)
    assert journal_in(tmp_path).job(made.id) == made


def test_others_cannot_read_it(tmp_path: Path) -> None:
    journal_in(tmp_path).event(EVENT)
    assert {p.stat().st_mode & 0o077 for p in tmp_path.iterdir()} == {0}


def test_a_folder_that_is_gone_is_not_made_up_for(tmp_path: Path) -> None:
    """It would be made in RAM, where its pool is not mounted."""
    place = tmp_path / "pool" / "state"
    journal = journal_in(place)
    with pytest.raises(JournalFailed, match="its folder is not there"):
        journal.event(EVENT)
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    journal.event(EVENT)
    assert journal.events() == [EVENT]


# -- kill -9 -------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from tests.contract.test_journal_file import EVENT, journal_in
from tests.support.jobs import DONE, NOW, request
from vm_babysitter.domain.job import JobState, finish, transition

journal = journal_in(Path(sys.argv[1]))
journal.interrupted(NOW)
while True:
    made = journal.submit(request("a"), NOW)
    print("queued", made.id, flush=True)
    running = transition(made, JobState.RUNNING, started=NOW, step="copy")
    journal.update(running)
    print("running", made.id, flush=True)
    journal.finish(finish(running, DONE, NOW), [EVENT], request("again"))
    print("done", made.id, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_was_told_is_kept(tmp_path: Path) -> None:
    chance = random.Random(6)
    told: dict[int, str] = {}
    for _ in range(_KILLS):
        for line in _killed_after(tmp_path, chance.uniform(0.0, 0.08)):
            word, number = line.split()
            told[int(number)] = word
        _look_at(tmp_path, told)
    assert "done" in told.values()


def _killed_after(folder: Path, seconds: float) -> list[str]:
    """Run the writer, kill it so long after its first word, and return what it said."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    environment = os.environ | {"PYTHONPATH": f"{_REPOSITORY}/backend:{_REPOSITORY}"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=_REPOSITORY
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.stdout.readlines()]
    return [line for line in lines if line.endswith("\n")]


def _look_at(folder: Path, told: dict[int, str]) -> None:
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    journal = journal_in(folder)
    kept = {j.id: j for j in journal.jobs(limit=1_000_000)}
    order = ["queued", "running", "done", "interrupted"]
    for number, word in told.items():
        state = kept[number].state
        assert order.index(state) >= order.index(word), (number, word, state)
    done = [j for j in kept.values() if j.state is JobState.DONE]
    again = [j for j in kept.values() if j.request.vm_name == "again"]
    events = [e for e in journal.events(limit=1_000_000) if e.kind == "x"]
    assert len(done) == len(events) == len(again)  # all of a transaction, or nothing
    assert not list(folder.glob("*.damaged-*"))
    journal.close()


# -- damage --------------------------------------------------------------------------------


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def half_zeroed(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4096 // 4 * 4096)
        file.write(bytes(size // 2))


def rubbish(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database")


def of_something_else(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE x (y)")


DAMAGES = [zeroed, truncated, half_zeroed, rubbish, header, of_something_else]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_a_new_one_is_begun_and_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path)
    damage(tmp_path / NAME)
    content = (tmp_path / NAME).read_bytes()
    journal = journal_in(tmp_path)
    with pytest.raises(JournalFailed, match=r"is damaged .* set aside as journal"):
        journal.jobs()
    aside = tmp_path / f"{NAME}.damaged-20261124T021500Z"
    assert aside.read_bytes() == content
    assert journal.jobs() == []
    assert journal.lost() == f"the journal was damaged and was set aside as {aside.name}"
    again = journal_in(tmp_path)
    assert again.lost() == journal.lost()  # until it is rebuilt, however often it is opened
    again.rebuild([KnownPoint("uuid-a", "a", "c/000001", NOW, NOW)])
    assert [j.point for j in again.jobs()] == ["c/000001"]
    assert again.lost() == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_runner_does_not_notice(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Jobs that have not ended are in the new file; the alert is too."""
    filled(tmp_path).close()
    journal = SteadyJournal(journal_in(tmp_path), FakeClock(NOW))
    queued = journal.submit(request("q"), NOW)
    assert isinstance(journal._journal, SqliteJournal)
    journal._journal.close()
    damage(tmp_path / NAME)
    made = journal.submit(request("a"), NOW)
    assert journal.trouble == ""
    assert made.id > queued.id
    kept = journal_in(tmp_path)
    assert kept.jobs() == [made, queued]
    assert {e.kind for e in kept.events()} == {EventKind.JOURNAL_FAILED, EventKind.JOURNAL_BACK}


@pytest.mark.parametrize("emptied", [False, True])
def test_a_file_that_is_removed_while_it_is_open_is_noticed(tmp_path: Path, emptied: bool) -> None:
    journal = SteadyJournal(journal_in(tmp_path), FakeClock(NOW))
    queued = journal.submit(request("q"), NOW)
    for path in tmp_path.iterdir():
        path.unlink()
    if emptied:
        (tmp_path / NAME).touch()
    made = journal.submit(request("a"), NOW)
    kept = journal_in(tmp_path)
    assert kept.jobs() == [made, queued]
    assert kept.lost() == "the journal was removed or emptied"


def test_a_first_journal_asks_to_be_filled_from_the_backups_that_there_are(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert journal.lost() == "there was no journal"
    journal.rebuild([])
    assert journal_in(tmp_path).lost() == ""


def test_few_damaged_files_are_kept(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    for _ in range(6):
        clock.advance(60)
        (tmp_path / NAME).write_bytes(b"x" * 5000)
        journal = SqliteJournal(tmp_path / NAME, clock)
        with pytest.raises(JournalFailed):
            journal.jobs()
        journal.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"{NAME}.damaged-20261124T02{m}00Z" for m in (19, 20, 21)]


def test_two_files_damaged_within_a_second_are_both_kept(tmp_path: Path) -> None:
    for content in (b"x" * 5000, b"y" * 5000):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(JournalFailed):
            journal_in(tmp_path).jobs()
    assert {p.read_bytes()[:1] for p in tmp_path.iterdir()} == {b"x", b"y"}


def test_an_entry_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    good, bad = (journal.submit(request(vm), NOW) for vm in "ab")
    journal.event(EVENT)
    journal.event(EVENT)
    journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("UPDATE jobs SET kind = 'x' WHERE id = ?", [bad.id])
        connection.execute("UPDATE events SET at = 'y' WHERE id = 1")
        connection.commit()
    assert journal.jobs() == [good]
    assert journal.job(bad.id) is None
    assert journal.events() == [EVENT]


# -- versions ------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    journal = filled(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.VERSIONS) + 1}")
    content = (tmp_path / NAME).read_bytes()
    newest = len(schema.VERSIONS)
    words = f"has format {newest + 1}; this version reads up to {newest}"
    with pytest.raises(JournalFailed, match=words) as caught:
        journal.jobs()
    assert "Install a newer version" in caught.value.message
    assert (tmp_path / NAME).read_bytes() == content
    assert not list(tmp_path.glob("*.damaged-*"))


def test_versions_follow_each_other_each_whole_or_not_at_all(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as connection:
        schema.migrate(connection)
        newer = (
            *schema.VERSIONS,
            ("ALTER TABLE jobs ADD COLUMN more TEXT", "UPDATE jobs SET more = 'x'"),
            ("CREATE TABLE half (x)", "this is no SQL"),
        )
        connection.execute("INSERT INTO runs VALUES ('daily', 'x')")
        with pytest.raises(sqlite3.Error):
            schema.migrate(connection, newer)
        assert schema.version(connection) == len(schema.VERSIONS) + 1
        tables = {r[0] for r in connection.execute("SELECT name FROM sqlite_schema")}
        assert "half" not in tables
        assert connection.execute("SELECT * FROM runs").fetchall() == [("daily", "x")]


def test_a_file_of_the_first_version_keeps_its_events_and_tells_none_of_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / NAME
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, schema.VERSIONS[:1])
        connection.execute(
            "INSERT INTO events (at, kind, severity, subject, text, vm_uuid, vm_name, job_id, code)"
            " VALUES (?, 'x', 'alert', 'old', '', '', '', 0, '')",
            [moment(NOW)],
        )
    journal = journal_in(tmp_path)
    assert [(event.subject, event.key) for event in journal.events()] == [("old", "")]
    journal.event(EVENT)
    assert journal.untold("unraid", NOW, 10) == [EVENT]


# -- file systems --------------------------------------------------------------------------


def test_where_the_file_system_allows_writers_do_not_hold_up_readers(tmp_path: Path) -> None:
    journal_in(tmp_path).event(EVENT)
    assert mode_of(tmp_path) == "wal"


@pytest.fixture
def unfit(tmp_path: Path) -> Iterator[Path]:
    beneath, place = tmp_path / "beneath", tmp_path / "place"
    beneath.mkdir()
    with fuse(beneath, place):
        yield place


@needs_root
def test_behind_fuse_there_is_no_shared_memory_and_all_works(unfit: Path) -> None:
    journal = journal_in(unfit)
    made = journal.submit(request(), NOW)
    assert {p.name for p in unfit.iterdir()} <= {NAME, f"{NAME}-journal"}
    assert journal.job(made.id) == made
    other = sqlite3.connect(unfit / NAME, timeout=0)
    with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM jobs")
    journal.close()
    assert mode_of(unfit) == "delete"
    assert journal.jobs() == [made]
    journal.close()


@needs_root
def test_a_journal_that_is_moved_to_another_file_system_goes_on(
    tmp_path: Path, unfit: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    journal = journal_in(here)
    made = journal.submit(request(), NOW)
    for path in here.iterdir():  # while it is open, with what is not in the file yet
        shutil.copy(path, unfit)
    moved = journal_in(unfit)
    assert moved.jobs() == [made]
    moved.close()
    assert mode_of(unfit) == "delete"
    back = tmp_path / "back"
    back.mkdir()
    shutil.copy(unfit / NAME, back)
    assert journal_in(back).jobs() == [made]
    journal.close()


@needs_root
def test_a_full_disk_is_told_and_once_there_is_room_all_is_kept(tmp_path: Path) -> None:
    with ram_disk(tmp_path / "small", 1024 * 1024) as place:
        journal = SteadyJournal(journal_in(place), FakeClock(NOW))
        first = journal.submit(request("first"), NOW)
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        made = [first]
        while not journal.trouble:
            made.append(journal.submit(request(f"{len(made)}"), NOW))
            assert len(made) < 1000
        assert "full" in journal.trouble
        running = transition(made[-1], JobState.RUNNING, started=NOW)
        journal.update(running)
        ended = finish(running, DONE, NOW)
        journal.finish(ended, [EVENT])
        assert journal.jobs(limit=1000) == [ended, *made[-2::-1]]
        filler.unlink()
        journal.retry()
        assert journal.trouble == ""
        kept = journal_in(place)
        assert kept.jobs(limit=1000) == [ended, *made[-2::-1]]
        assert EVENT in kept.events()
        kept.close()
        assert isinstance(journal._journal, SqliteJournal)
        journal._journal.close()


@needs_root
@pytest.mark.parametrize("begun", [False, True])
def test_a_disk_that_is_read_only_is_told_and_jobs_go_on(tmp_path: Path, begun: bool) -> None:
    place = tmp_path / "state"
    place.mkdir()
    if begun:
        filled(place, 3)
    with read_only(place):
        real = journal_in(place)
        with pytest.raises(JournalFailed):
            real.submit(request("a"), NOW)
        journal = SteadyJournal(real, FakeClock(NOW))
        made = journal.submit(request("a"), NOW)
        assert journal.job(made.id) == made
        assert str(place / NAME) in journal.trouble
        assert not list(place.glob("*.damaged-*"))
    journal.retry()
    assert journal.trouble == ""
    assert journal_in(place).job(made.id) == made


def test_somebody_who_holds_the_file_locked_is_waited_for(tmp_path: Path) -> None:
    journal = filled(tmp_path, 1)
    hold = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(0.5)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.dumps(process.stdout.readline()) == '"locked\\n"'
        journal.event(EVENT)
    assert len(journal.events()) == 2
