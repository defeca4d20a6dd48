"""How much memory a piece of work takes at most."""

import gc
import os
import pickle
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def peak_memory(work: Callable[[], Result]) -> tuple[int, Result]:
    """The most bytes that Python held for `work`, which runs in a forked process, and its result.

    In this one, a thread that an earlier test left behind would be counted too. The child has but
    the thread that forked it. Whatever `work` changes in memory stays in the child.

    Raises:
        AssertionError: `work` raised.
    """
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            gc.freeze()  # nothing of the parent's is finalised here
            tracemalloc.start()
            result = work()
            _now, peak = tracemalloc.get_traced_memory()
            os.write(sink, pickle.dumps((peak, result)))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(0)  # a fork must never go on as a second pytest
    os.close(sink)
    try:
        answer = Path(f"/proc/self/fd/{source}").read_bytes()
    finally:
        os.close(source)
        os.waitpid(child, 0)
    assert answer, "the work failed, see its traceback"
    peak, result = pickle.loads(answer)  # noqa: S301
    return peak, result
