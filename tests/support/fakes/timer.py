"""Alarms that ring when a test lets time pass: ``ports.Timer``."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tests.support.fakes.clock import FakeClock


class FakeTimer:
    """Implements ``ports.Timer`` on a clock that stands still.

    Calls are made by ``pass_time`` and ``settle``, in the caller's thread. What they raise is
    kept in ``failures``.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._alarms: dict[str, tuple[datetime, Callable[[], None]]] = {}
        self._listeners: list[Callable[[], None]] = []
        self.failures: list[Exception] = []

    def at(self, name: str, moment: datetime, call: Callable[[], None]) -> None:
        self._alarms[name] = (moment, call)

    def cancel(self, name: str) -> None:
        self._alarms.pop(name, None)

    def alarms(self) -> dict[str, datetime]:
        return {name: moment for name, (moment, _) in self._alarms.items()}

    def on_jump(self, call: Callable[[], None]) -> None:
        self._listeners.append(call)

    def settle(self) -> None:
        """Ring what is due, the earliest first, until nothing is."""
        while due := self._due(self._clock.now()):
            self._call(self._alarms.pop(due)[1])

    def pass_time(self, amount: timedelta) -> None:
        """Let time pass as it does: each alarm rings at its moment."""
        end = self._clock.now() + amount
        self.settle()
        while due := self._due(end):
            self._set_clock(self._alarms[due][0])
            self.settle()
        self._set_clock(end)

    def jump(self, amount: timedelta) -> None:
        """Set the clock forward or back; all are told."""
        self._set_clock(self._clock.now() + amount)
        for listener in self._listeners:
            self._call(listener)
        self.settle()

    def sleep(self, amount: timedelta) -> None:
        """Let time pass in which nothing runs: the machine sleeps, and nobody is told."""
        self._set_clock(self._clock.now() + amount)
        self.settle()

    def _due(self, moment: datetime) -> str | None:
        due = [(when, name) for name, (when, _) in self._alarms.items() if when <= moment]
        return min(due)[1] if due else None

    def _set_clock(self, moment: datetime) -> None:
        self._clock.advance((moment - self._clock.now()) / timedelta(seconds=1))

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - as a timer does, which logs it
            self.failures.append(error)
