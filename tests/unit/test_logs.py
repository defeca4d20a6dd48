"""Logs: the main one is bounded, each job has its own, and no secret is in them."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.jobs import eventually
from tests.support.mounts import ram_disk
from vm_babysitter.adapters.job_logs import JobLogs
from vm_babysitter.adapters.main_log import LogSettings, MainLog
from vm_babysitter.adapters.secrets import Secrets

LOG = logging.getLogger("vm_babysitter.engine.x")
JOB = logging.getLogger("vm_babysitter.job")
PRIVATE = "hunter2-x"


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    logger = logging.getLogger("vm_babysitter")
    level = logger.level
    yield
    logger.setLevel(level)
    assert logger.handlers == []


@pytest.fixture
def log(tmp_path: Path) -> Iterator[MainLog]:
    made = MainLog(tmp_path / "main.log", Secrets())
    made.open(LogSettings())
    yield made
    made.close()


@pytest.fixture
def jobs(tmp_path: Path) -> JobLogs:
    return JobLogs(tmp_path / "jobs", Secrets())


def text_of(jobs: JobLogs, number: int) -> str:
    part = jobs.read(number)
    assert part is not None
    return part.text


# -- the main log --------------------------------------------------------------------------


def test_a_line_tells_time_level_job_and_text(log: MainLog, tmp_path: Path) -> None:
    LOG.info("one\ntwo")
    JOB.warning("three", extra={"job": 7})
    LOG.debug("not this")
    first, second, third = (tmp_path / "main.log").read_text().splitlines()
    at = datetime.strptime(first[:24], "%Y-%m-%d %H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert first[24:] == " info: one"
    assert second == "    two"
    assert third[24:] == " warning job 7: three"


def test_the_level_can_be_changed_while_it_runs(log: MainLog, tmp_path: Path) -> None:
    log.open(LogSettings(level=logging.DEBUG))
    LOG.debug("now this")
    log.open(LogSettings(level=logging.ERROR))
    LOG.warning("not this")
    assert "now this" in (tmp_path / "main.log").read_text()
    assert "not this" not in (tmp_path / "main.log").read_text()


@pytest.mark.parametrize("files", [1, 2, 4])
def test_it_is_begun_anew_when_it_is_full_and_old_ones_go(
    log: MainLog, tmp_path: Path, files: int
) -> None:
    log.open(LogSettings(size=2000, files=files))
    for number in range(400):
        LOG.info("line %d", number)
    found = sorted(p.name for p in tmp_path.iterdir())
    assert len(found) == max(2, files)
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())
    assert "line 399" in (tmp_path / "main.log").read_text()


def test_no_secret_is_in_it_not_even_in_a_traceback(tmp_path: Path) -> None:
    secrets = Secrets()
    secrets.know([PRIVATE])
    log = MainLog(tmp_path / "main.log", secrets)
    log.open(LogSettings())
    try:
        int(PRIVATE)
    except ValueError:
        LOG.exception("Logging in with %s failed.", PRIVATE)
    LOG.info("url %s", "https://user:another1@host/")
    log.close()
    text = (tmp_path / "main.log").read_text()
    assert "Traceback" in text
    assert "with base 10: '***'" in text
    assert PRIVATE not in text
    assert "another1" not in text


def test_without_a_place_for_it_all_goes_on(tmp_path: Path) -> None:
    log = MainLog(tmp_path / "gone" / "main.log", Secrets(), syslog=tmp_path / "no socket")
    log.open(LogSettings())
    LOG.error("into nowhere")
    log.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_keeps_nobody_from_working(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ram_disk(tmp_path / "small", 256 * 1024) as place:
        log = MainLog(place / "main.log", Secrets())
        log.open(LogSettings(size=64 * 1024 * 1024))
        jobs = JobLogs(place / "jobs", Secrets())
        with jobs.of(1):
            for _ in range(100):
                LOG.info("x" * 10_000)
            for path in place.glob("**/*.log"):
                os.truncate(path, 0)
            LOG.info("there is room again")
        log.close()
        assert "there is room again" in (place / "main.log").read_text()
    assert "Logging error" not in capfd.readouterr().err


def test_the_systems_log_hears_it_too(tmp_path: Path) -> None:
    place = tmp_path / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(place))
        system.settimeout(20)
        log = MainLog(tmp_path / "main.log", Secrets(), syslog=place)
        log.open(LogSettings(level=logging.WARNING))
        LOG.info("not this")
        LOG.warning("password=%s", PRIVATE)
        heard = system.recv(4096)
        log.close()
    assert heard.rstrip(b"\0") == b"<12>vm-babysitter: warning: password=***"


def test_a_system_log_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    place = tmp_path / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(place))
        system.settimeout(20)
        log = MainLog(tmp_path / "main.log", Secrets(), syslog=place)
        log.open(LogSettings())

        def work() -> None:
            for number in range(2000):
                LOG.info("line %d", number)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(10)
        hangs = worker.is_alive()
        while worker.is_alive():
            system.recv(4096)
        log.close()
    assert not hangs
    assert "line 1999" in (tmp_path / "main.log").read_text()


# -- logs of jobs --------------------------------------------------------------------------


def test_each_job_has_its_own_log_and_those_beside_it_are_not_in_it(
    log: MainLog, jobs: JobLogs, tmp_path: Path
) -> None:
    begun = threading.Barrier(2)

    def work(number: int) -> None:
        with jobs.of(number):
            begun.wait(20)
            JOB.info("told of %d", number, extra={"job": number})
            LOG.info("from the thread of %d", number)
            begun.wait(20)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    LOG.info("of no job")
    for number in (1, 2):
        lines = [line[25:] for line in text_of(jobs, number).splitlines()]
        assert lines == [
            f"info job {number}: told of {number}",
            f"info: from the thread of {number}",
        ]
    assert len((tmp_path / "main.log").read_text().splitlines()) == 5


def test_a_job_tells_what_it_does_however_little_the_main_log_keeps(
    log: MainLog, jobs: JobLogs
) -> None:
    log.open(LogSettings(level=logging.ERROR))
    with jobs.of(1):
        JOB.info("step: copy", extra={"job": 1})
    assert "step: copy" in text_of(jobs, 1)


def test_it_has_a_log_without_any_main_log(jobs: JobLogs) -> None:
    with jobs.of(1):
        JOB.info("step: copy", extra={"job": 1})
    assert "step: copy" in text_of(jobs, 1)


def test_a_log_is_read_in_parts_of_whole_lines_while_it_grows(jobs: JobLogs) -> None:
    assert jobs.read(1) is None
    with jobs.of(1):
        LOG.info("one")
        part = jobs.read(1)
        assert part is not None
        assert (part.text[25:], part.more) == ("info: one\n", False)
        LOG.info("zwölf")
        after = jobs.read(1, part.next)
        assert after is not None
        assert after.text[25:] == "info: zwölf\n"
        for _ in range(50):
            LOG.info("%s", "y" * 9999)
    offset, texts = 0, []
    while True:
        part = jobs.read(1, offset)
        assert part is not None
        assert part.text.endswith("\n")
        texts.append(part.text)
        offset = part.next
        if not part.more:
            break
    assert len(texts) > 1
    assert "".join(texts).count("\n") == 52
    for odd in (-5, 10**12):
        part = jobs.read(1, odd)
        assert part is not None
        assert part.next <= offset


def test_a_log_has_bounds(tmp_path: Path) -> None:
    jobs = JobLogs(tmp_path / "jobs", Secrets(), limit=1000)
    with jobs.of(1):
        for number in range(100):
            LOG.info("line %d", number)
    text = text_of(jobs, 1)
    assert len(text) < 1200
    assert text.endswith("what follows is in the main log only.\n")


def test_a_number_that_is_used_again_begins_a_new_log(jobs: JobLogs) -> None:
    for word in ("old", "new"):
        with jobs.of(1):
            LOG.info(word)
    assert text_of(jobs, 1)[25:] == "info: new\n"


def test_old_logs_go_and_nothing_else(jobs: JobLogs, tmp_path: Path) -> None:
    assert jobs.prune(datetime.now(UTC)) == 0
    for number in (1, 2):
        with jobs.of(number):
            LOG.info("x")
    strange = tmp_path / "jobs" / "job-3.log.txt"
    strange.write_text("mine")
    for path in (tmp_path / "jobs" / "job-1.log", strange):
        os.utime(path, (1000, 1000))
    assert jobs.prune(datetime(2026, 1, 1, tzinfo=UTC)) == 1
    assert jobs.read(1) is None
    assert jobs.read(2) is not None
    assert strange.exists()


def test_a_job_runs_without_a_log_where_none_can_be_had(log: MainLog, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = JobLogs(tmp_path / "file", Secrets())
    with jobs.of(1):
        LOG.info("it runs")
    text = (tmp_path / "main.log").read_text()
    assert "Job 1 has no log of its own" in text
    assert "it runs" in text


def test_no_secret_is_in_a_job_log(tmp_path: Path) -> None:
    secrets = Secrets()
    secrets.know([PRIVATE])
    jobs = JobLogs(tmp_path / "jobs", secrets)
    with jobs.of(1):
        LOG.info("with %s", PRIVATE)
    assert text_of(jobs, 1)[25:] == "info: with ***\n"
    assert (tmp_path / "jobs").stat().st_mode & 0o077 == 0
    eventually(lambda: not logging.getLogger("vm_babysitter").handlers)
