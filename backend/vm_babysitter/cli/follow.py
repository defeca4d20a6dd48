"""Has the daemon do a job, and follows it to its end."""

import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.colours import warning
from vm_babysitter.cli.failure import Failure, Refused, job_exit
from vm_babysitter.cli.output import say
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.render_jobs import submitted_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.domain.errors import Cancelled, DaemonMissing
from vm_babysitter.domain.job import ENDED, JobKind, Option, Result
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.views import JobView

PATIENCE = 30.0
"""Seconds for which a daemon that does not answer may be starting again."""
_FIRST, _EVERY = 0.05, 0.5
"""Seconds between two looks, at first and later."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A closed terminal ends whoever follows, and leaves the job alone."""
LEFT = "The daemon goes on ending the job; `vm-babysitter jobs` tells when it has."
_LINE = re.compile(r"\S+ \S+ (?P<level>\w+)(?: job \d+)?: (?P<text>.*)")
_KNOWN = re.compile(rf"step: |\w+ of .* begins\.$|(?:{'|'.join(Result)}): ")
"""What the log of a job says that is shown otherwise."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the daemon is asked for."""

    kind: JobKind
    vm: str
    options: Mapping[str, Option]
    text: Callable[[Daemon, JobView], str]
    """Says what a job came to that went well."""


@dataclass(slots=True)
class JobLog:
    """Reads what is new in the log of a job."""

    daemon: Daemon
    job: int
    note: Callable[[str], None]
    """Is told what is worth a line at once."""
    warnings: list[str] = field(default_factory=list)
    """What the job warned of."""
    _offset: int = 0
    _said: Callable[[str], None] | None = None

    def read(self) -> None:
        """Read on."""
        while True:
            try:
                piece = self.daemon.log(self.job, self._offset)
            except (Refused, DaemonMissing):  # it is for reading on the way only
                return
            for line in piece.text.splitlines():
                self._take(line)
            if piece.next_offset == self._offset:
                return
            self._offset = piece.next_offset

    def _take(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            if self._said is not None:
                self._said(line)
            return
        text = found["text"]
        warned = found["level"] in {"warning", "error", "critical"}
        self._said = None if _KNOWN.match(text) else self.warnings.append if warned else self.note
        if self._said is not None:
            self._said(text)


def run_job(session: Session, order: Order, *, as_json: bool, detach: bool) -> None:
    """Have a job done and tell how it ended; ends the process unless all went well.

    ``detach`` tells only that the daemon has taken it on.
    """
    with session.daemon(as_json=as_json) as daemon:
        if detach:
            job = daemon.submit(order.kind, order.vm, order.options)
            show(as_json, lambda: job, lambda: submitted_text(job, session.suggest))
            return
        observer, cancel = TerminalObserver(), Cancel()
        try:
            with stoppable(cancel, None, signals=SIGNALS, left=LEFT):
                job = daemon.submit(order.kind, order.vm, order.options)
                log = JobLog(daemon, job.id, observer.note)
                job = follow(daemon, job, observer, cancel, log)
        finally:
            observer.close()
        _tell(session, daemon, order, job, log.warnings, as_json=as_json)


def follow(
    daemon: Daemon, job: JobView, observer: TerminalObserver, cancel: Cancel, log: JobLog
) -> JobView:
    """Return a job once it has ended. A request to ``cancel`` is passed on to the daemon.

    Raises:
        DaemonMissing: the daemon does not answer any more, for longer than it takes to restart.
    """
    pause, step, asked = _FIRST, "", False
    nap = threading.Event()
    while True:
        log.read()
        if job.state in ENDED:
            return job
        step = _draw(job, step, observer)
        try:
            cancel.wait(0 if asked else pause)
        except Cancelled:
            asked = asked or _cancelled(daemon, job.id, observer)
            nap.wait(pause)
        pause = min(_EVERY, pause * 1.5)
        job = _look(daemon, job.id, observer)


def _cancelled(daemon: Daemon, job: int, observer: TerminalObserver) -> bool:
    """Cancel a job; return whether the daemon has heard it."""
    try:
        daemon.cancel(job)
    except DaemonMissing:
        return False
    observer.note(f"Job {job} is being cancelled; a second Ctrl-C does not wait for its end.")
    return True


def _look(daemon: Daemon, job: int, observer: TerminalObserver) -> JobView:
    deadline = time.monotonic() + PATIENCE
    told = False
    while True:
        try:
            return daemon.job(job)
        except DaemonMissing:
            if time.monotonic() > deadline:
                raise
            if not told:
                observer.note("The daemon does not answer; it may be starting again.")
                told = True
            threading.Event().wait(_EVERY)


def _draw(job: JobView, step: str, observer: TerminalObserver) -> str:
    waits = "" if job.step else job.waits_for
    now = f"job {job.id}: {job.step or waits or job.state}"
    if now != step:
        if waits:  # on a line of its own: it may last, and somebody may see to it
            observer.note(f"Job {job.id} waits: {waits}.")
        observer.step(f"job {job.id} waits" if waits else now)
    if job.total_bytes:
        observer.progress(job.done_bytes, job.total_bytes)
    return now


def _tell(
    session: Session,
    daemon: Daemon,
    order: Order,
    job: JobView,
    warnings: list[str],
    *,
    as_json: bool,
) -> None:
    code = job_exit(job)
    went_well = job.result in {Result.OK, Result.WARNINGS, Result.NOTHING}
    if not as_json:
        text = order.text(daemon, job) if went_well else ""
        more = [warning(f"Warning: {each}") for each in warnings if each.rstrip(".") not in text]
        lines = [*([text] if text else []), *more]
        if lines:
            say("\n".join(lines))
    if not went_well:
        session.fail(Failure.of_job(job), as_json=as_json, job=job)
    if as_json:
        show(as_json, lambda: job, str)
    if code:
        raise SystemExit(code)
