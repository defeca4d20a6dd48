"""Jobs leave the processor to the VMs while they copy."""

import os
import threading

from vm_babysitter.adapters.priority import lowered


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_thread_and_those_it_starts_are_low_while_the_context_lasts() -> None:
    found = []
    before = niceness()
    with lowered():
        other = threading.Thread(target=lambda: found.append(niceness()))
        other.start()
        other.join()
        found.append(niceness())
    assert found == [max(before, 10)] * 2
    assert niceness() == (before if os.geteuid() == 0 else max(before, 10))


def test_other_threads_keep_theirs() -> None:
    inside, done = threading.Event(), threading.Event()

    def job() -> None:
        with lowered():
            inside.set()
            done.wait(5)

    worker = threading.Thread(target=job)
    before = niceness()
    worker.start()
    inside.wait(5)
    assert niceness() == before
    done.set()
    worker.join()
