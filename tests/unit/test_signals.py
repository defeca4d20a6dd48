"""Signals that are waited for, whichever thread the system hands them to."""

import os
import signal
import threading

from vm_babysitter.lib.signals import signals

NUMBER = signal.SIGUSR1


def _watchdog() -> threading.Timer:
    """End a test that waits for ever."""
    timer = threading.Timer(10, os._exit, [99])
    timer.daemon = True
    timer.start()
    return timer


def test_a_signal_that_another_thread_is_handed_is_not_missed() -> None:
    watchdog = _watchdog()
    with signals([NUMBER]) as wait:
        other = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), NUMBER))
        other.start()
        wait()
    other.join()
    watchdog.cancel()


def test_a_signal_that_came_before_is_not_missed() -> None:
    watchdog = _watchdog()
    with signals([NUMBER]) as wait:
        signal.raise_signal(NUMBER)
        wait()
    watchdog.cancel()


def test_other_signals_do_not_end_the_wait() -> None:
    watchdog = _watchdog()
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    came = threading.Event()

    def send() -> None:
        came.set()
        os.kill(os.getpid(), NUMBER)

    with signals([NUMBER]) as wait:
        signal.raise_signal(signal.SIGUSR2)
        later = threading.Timer(0.2, send)
        later.start()
        wait()
    assert came.is_set()
    signal.signal(signal.SIGUSR2, before)
    watchdog.cancel()


def test_afterwards_signals_do_what_they_did() -> None:
    before = signal.getsignal(NUMBER)
    with signals([NUMBER]):
        assert signal.getsignal(NUMBER) is not before
    assert signal.getsignal(NUMBER) is before
