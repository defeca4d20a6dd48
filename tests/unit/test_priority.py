"""Jobs leave the processor to the VMs while they copy."""

import os
import subprocess
import sys
import threading

import pytest

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


_CHILDREN = """
import sys
from vm_babysitter.adapters.priority import lowered
from vm_babysitter.adapters.process import run

def low():
    with lowered():
        return run(["nice"], timeout=20).strip()

found = [low()] if sys.argv[1] == "first" else []
print(run(["nice"], timeout=20).strip(), low(), run(["nice"], timeout=20).strip())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go up again")
@pytest.mark.parametrize("begun", ["first", "later"])
def test_a_program_has_the_priority_of_the_thread_that_starts_it(begun: str) -> None:
    # In a process of its own: whoever starts the first program there must not matter.
    argv = [sys.executable, "-c", _CHILDREN, begun]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    mine = str(niceness())
    assert found.stdout.split() == [mine, str(max(niceness(), 10)), mine]
