"""Several threads that share the pieces of one read."""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Generic, TypeVar

from vm_babysitter.domain.blocks import Piece

P = TypeVar("P")


class SharedWork(Generic[P]):
    """What the threads of one ``read`` share: the pieces, who takes the data, the first error."""

    def __init__(
        self,
        pieces: Iterable[tuple[Piece, P]],
        consume: Callable[[Piece, P, memoryview], None],
        abort: Callable[[], None],
    ) -> None:
        """``abort`` is called at the first error, so that no thread waits any more."""
        self.consume = consume
        self._error: BaseException | None = None
        self._pieces = iter(pieces)
        self._pull = threading.Lock()
        self._failing = threading.Lock()
        self._abort = abort

    def next(self) -> tuple[Piece, P] | None:
        """Return the next piece to read; None: there is none, or somebody failed."""
        with self._pull:
            return None if self._error is not None else next(self._pieces, None)

    def run(self, workers: Sequence[Callable[[], None]], name: str) -> None:
        """Run each worker in a thread of its own until all are done; raise the first error."""
        threads = [
            threading.Thread(
                target=copy_context().run,  # log records know the job in threads too
                args=(self._do, worker),
                name=f"{name}-{number}",
            )
            for number, worker in enumerate(workers)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._fail(error)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if self._error is not None:
            raise self._error

    def _do(self, worker: Callable[[], None]) -> None:
        try:
            worker()
        except BaseException as error:  # noqa: BLE001 - raised by the caller of run()
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Stop everybody. The first error is the one that counts."""
        with self._failing:
            if self._error is not None:
                return
            self._error = error
        self._abort()
