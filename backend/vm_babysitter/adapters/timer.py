"""Alarms, by APScheduler: its threads and its waiting; what is due when is decided by others."""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.ports import Clock

_BEAT = 15.0
"""Seconds between two looks whether the clock was set."""
_JUMP = 1.0
"""Seconds from which on it counts as set. What it is slowed or sped up adds up to that, too."""


@dataclass(eq=False, slots=True)
class _Alarm:
    name: str
    moment: datetime
    call: Callable[[], None]
    job: str = ""
    """APScheduler's name of it: another one each time, since a job may set its own alarm anew."""


class _OneThread(BaseExecutor):  # type: ignore[misc]
    """Makes calls one at a time, in a thread that keeps no process from ending.

    Those of APScheduler are waited for at the end of the process: for ever where a call hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: queue.SimpleQueue[tuple[Any, Any] | None] = queue.SimpleQueue()

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        threading.Thread(target=self._run, name="timer", daemon=True).start()

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - APScheduler's
        self._waiting.put(None)

    def _do_submit_job(self, job: Any, run_times: Any) -> None:
        self._waiting.put((job, run_times))

    def _run(self) -> None:
        while (given := self._waiting.get()) is not None:
            job, run_times = given
            try:
                events = run_job(job, job._jobstore_alias, run_times, self._logger.name)
            except BaseException:  # noqa: BLE001 - told by APScheduler; others are still to be called
                self._run_job_error(job.id, *sys.exc_info()[1:])
            else:
                self._run_job_success(job.id, events)


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]
    """APScheduler's, for which a job that is gone is not worth an error.

    While it is being shut down its thread finds none of its jobs any more, and would end in tears.
    """

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        with contextlib.suppress(JobLookupError):
            super().remove_job(job_id, jobstore)


class ApsTimer:
    """Implements ``ports.Timer``. Alarms may be set before it is started, and after it stopped.

    APScheduler sleeps for as long as it seemed right when it fell asleep. So a thread of our own
    looks at the clock now and then, and sets all alarms anew once the clock was set.

    Args:
        clock: what the moments of alarms are held against.
        beat: seconds between two looks at the clock.
    """

    def __init__(self, clock: Clock, beat: float = _BEAT) -> None:
        self._clock = clock
        self._system = SystemClock()
        self._beat = beat
        self._alarms: dict[str, _Alarm] = {}
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._watch_clock, name="clock watch", daemon=True)
        # A time zone of its own would be looked for on the host, else.
        self._scheduler = _Scheduler(
            timezone=UTC,
            executors={"default": _OneThread()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Begin to call."""
        self._scheduler.start()
        self._watch.start()

    def stop(self) -> None:
        """Begin no more calls; one that is being made is not waited for. Fine if not started."""
        self._stopping.set()
        if not self._scheduler.running:
            return
        # Waiting would hold a lock that a call which sets an alarm needs to end.
        self._scheduler.shutdown(wait=False)
        self._watch.join()

    def at(self, name: str, moment: datetime, call: Callable[[], None]) -> None:
        """See the port."""
        with self._lock:
            self._drop(name)
            self._set(_Alarm(name, moment, call))

    def cancel(self, name: str) -> None:
        """See the port."""
        with self._lock:
            self._drop(name)

    def alarms(self) -> dict[str, datetime]:
        """See the port."""
        with self._lock:
            return {alarm.name: alarm.moment for alarm in self._alarms.values()}

    def on_jump(self, call: Callable[[], None]) -> None:
        """See the port."""
        with self._lock:
            self._listeners.append(call)

    def _set(self, alarm: _Alarm) -> None:
        # APScheduler goes by the system's clock, whatever clock we go by.
        away = max(alarm.moment - self._clock.now(), timedelta())
        trigger = DateTrigger(self._system.now() + away)
        alarm.job = self._scheduler.add_job(self._ring, trigger, args=[alarm]).id
        self._alarms[alarm.name] = alarm

    def _drop(self, name: str) -> None:
        alarm = self._alarms.pop(name, None)
        if alarm is not None:
            # Where it is about to ring it is gone, and will find that it is not wanted.
            self._scheduler.remove_job(alarm.job)

    def _ring(self, alarm: _Alarm) -> None:
        with self._lock:
            if self._alarms.get(alarm.name) is not alarm:
                return  # dropped, or set anew, meanwhile
            if self._clock.now() < alarm.moment:
                self._set(alarm)
                return
            del self._alarms[alarm.name]
        alarm.call()

    def _watch_clock(self) -> None:
        ahead = self._ahead()
        while not self._stopping.wait(self._beat):
            now = self._ahead()
            if abs(now - ahead) >= _JUMP:
                ahead = now
                self._jumped()

    def _ahead(self) -> float:
        """Return how far the clock is ahead of one that nobody sets, in seconds."""
        return self._clock.now().timestamp() - time.monotonic()

    def _jumped(self) -> None:
        with self._lock:
            for alarm in list(self._alarms.values()):
                self._scheduler.remove_job(alarm.job)
                # Another object: the old one may be about to ring.
                self._set(_Alarm(alarm.name, alarm.moment, alarm.call))
            for listener in self._listeners:
                self._scheduler.add_job(listener)
