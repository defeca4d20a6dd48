"""Work on files that is killed at each of its steps."""

import os
import sys
from collections.abc import Callable, Iterator

_EVENTS = frozenset({"os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.link", "os.truncate"})
_KILLED = 9


def each_kill(work: Callable[[], object]) -> Iterator[int]:
    """Do something again and again, in a child that is killed just before its nth change.

    Yields after each kill, for a look at what it left, and ends when it was through. A changed
    file's content is not such a step: in this project files get their names when they are whole.
    """
    number = 0
    while _killed(work, number):
        yield number
        number += 1


def _killed(work: Callable[[], object], number: int) -> bool:
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, _arguments: object) -> None:
            nonlocal count
            if event in _EVENTS:
                if count == number:
                    os._exit(_KILLED)
                count += 1

        sys.addaudithook(watch)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the parent has to hear of it
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, _KILLED}, f"the work failed: {code}"
    return code == _KILLED
