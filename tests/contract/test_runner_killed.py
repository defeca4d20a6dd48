"""The runner on a real journal, killed at random moments: no job is lost, none runs for ever."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import NOW
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.domain.job import ENDED, LIVE, Job, JobState

_REPOSITORY = Path(__file__).parents[2]
_KILLS = 200 if os.environ.get("VMB_SOAK") == "1" else 12
DAEMON = """
import sys, time
from pathlib import Path
from tests.support.jobs import DONE, Listener, request
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.job_logs import JobLogs
from vm_babysitter.adapters.secrets import Secrets
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.domain.job import JobKind, Limits
from vm_babysitter.engine.runner import Runner
from vm_babysitter.engine.steady_journal import SteadyJournal

folder, life = Path(sys.argv[1]), sys.argv[2]
clock = SystemClock()
journal = SteadyJournal(SqliteJournal(folder / "journal.sqlite", clock), clock)

def work(job, observer, cancel):
    observer.step("copy")
    cancel.wait(0.002)
    observer.progress(1, 2)
    return DONE

runner = Runner(journal, clock, dict.fromkeys(JobKind, work), [], Limits(2, 2), Listener())
runner.logs = JobLogs(folder / "jobs", Secrets())
runner.start()
print("ready", flush=True)
number = 0
while True:
    number += 1
    kind = [JobKind.BACKUP, JobKind.VERIFY][number % 2]
    job = runner.submit(request(f"vm{number % 5}", kind, options={"life": life, "n": number}))
    print(job.id, flush=True)
    time.sleep(0.01)
"""


def test_no_job_is_lost_and_none_runs_for_ever(tmp_path: Path) -> None:
    chance = random.Random(60)
    known: list[int] = []
    for life in range(_KILLS):
        known += _one_life(tmp_path, life, chance.uniform(0.0, 0.15))
    kept = _jobs(tmp_path)
    assert set(known) <= set(kept)
    assert len(known) > _KILLS
    # The last life interrupts, does again, and at last ends what the others left behind.
    for _ in range(20):
        _one_life(tmp_path, _KILLS, 0.3, submit=False)
        kept = _jobs(tmp_path)
        if not [j for j in kept.values() if j.state in LIVE and j.request.not_before is None]:
            break
    for number in known:
        assert kept[number].state in ENDED
    for job in kept.values():
        if job.state is JobState.INTERRUPTED and job.request.try_number == 1:
            again = [j for j in kept.values() if j.request.same_work(job.request)]
            assert len(again) > 1, f"job {job.id} was not done again"


def _one_life(folder: Path, life: int, seconds: float, *, submit: bool = True) -> list[int]:
    """Let a daemon run, kill it, and return the numbers of the jobs that it took on."""
    program = DAEMON if submit else DAEMON.replace("while True:", "while time.sleep(1) is None:")
    command = [sys.executable, "-c", program, str(folder), str(life)]
    environment = os.environ | {"PYTHONPATH": f"{_REPOSITORY}/backend:{_REPOSITORY}"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=_REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.readlines()
    return [int(line) for line in lines if line.endswith("\n")]


def _jobs(folder: Path) -> dict[int, Job]:
    journal = SqliteJournal(folder / "journal.sqlite", FakeClock(NOW))
    found = {job.id: job for job in journal.jobs(limit=1_000_000)}
    journal.close()
    return found
