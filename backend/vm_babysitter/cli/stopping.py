"""Ctrl-C, SIGTERM and a closed terminal: stop cleanly, and stop even if nobody answers."""

import os
import select
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from vm_babysitter.domain.errors import Exit
from vm_babysitter.engine.cancel import Cancel

GRACE = 10.0
"""Seconds that a job has for its cleaning up before the process ends all the same."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEFT = "libvirt or the backup folder does not answer; the next run cleans up."


@contextmanager
def stoppable(
    cancel: Cancel,
    grace: float | None = GRACE,
    *,
    signals: Collection[signal.Signals] = _SIGNALS,
    left: str = _LEFT,
) -> Iterator[None]:
    """Have the first signal ask the job to stop, and end the process if it does not.

    It does so after ``grace`` seconds (None: never) or at a second signal, with the exit code of
    a cancelled job, and says what is ``left``. That is what kill -9 does, which every step of a
    job is made for.

    A thread does it: while the main thread waits inside libvirt for a QEMU that is stalled, no
    Python signal handler runs, but the interpreter still writes to the wake-up descriptor.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    handled = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _do_nothing) for number in handled}
    fd_before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_watch, args=(receiving, cancel, grace, left), name="stopping", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(sending)
        watcher.join()
        os.close(receiving)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Take the place of the default action; the wake-up descriptor does the rest."""


def _watch(receiving: int, cancel: Cancel, grace: float | None, left: str) -> None:
    if not os.read(receiving, 1):
        return
    cancel.request()
    ready, _, _ = select.select([receiving], [], [], grace)
    if ready and not os.read(receiving, 1):
        return
    os.write(2, f"\n{left}\n".encode())
    os._exit(Exit.CANCELLED)
