"""Our program where the clock is wrong: in this process, or as a command with faults in it."""

import json
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from tests.support.faulty import Fault, Faults, Watched
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.cli.main import run
from vm_babysitter.engine.app import App, Place
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Observer


class ShiftedClock(SystemClock):
    """A clock that somebody has set."""

    def __init__(self, shift: timedelta) -> None:
        self._shift = shift

    def now(self) -> datetime:
        return super().now() + self._shift


class Shifted(Standalone):
    """The engine with such a clock."""

    def __init__(self, place: Place, observer: Observer, cancel: Cancel, shift: timedelta) -> None:
        super().__init__(place, observer, cancel)
        self._clock = ShiftedClock(shift)


def main() -> None:
    runtime, shift = Path(sys.argv[1]), timedelta(seconds=float(sys.argv[2]))
    faults = Faults([Fault(*fault) for fault in json.loads(sys.argv[3])])

    def compose(place: Place, observer: Observer, cancel: Cancel) -> App:
        place = replace(place, runtime=runtime, host=faults.host)
        return Shifted(place, Watched(observer, faults), cancel, shift)

    faults.watch()
    run(compose, sys.argv[4:])


if __name__ == "__main__":
    main()
