"""Copies a raw image into a new qcow2 one."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from vm_babysitter.domain.conversion import OLD_FORMAT
from vm_babysitter.domain.errors import ConversionFailed, StoreFailed
from vm_babysitter.engine.conversion import ConvertTools
from vm_babysitter.engine.copying import (
    DiskCopier,
    EmptyIndex,
    NewLayer,
    bytes_to_read,
    runs_to_copy,
)
from vm_babysitter.engine.meter import Meter
from vm_babysitter.ports import WrittenFile

_LOOK_SECONDS = 1.0
"""How often it is looked whether the copy can still come to anything."""


def copy_raw(tools: ConvertTools, old: Path, new: Path, look: Callable[[], None]) -> int:
    """Copy an image, which is shared with whoever has it open; what is zero stays a hole.

    Args:
        tools: what it takes.
        old: the raw image.
        new: the qcow2 image, which must not exist.
        look: is called now and then; what it raises ends the copying.

    Returns the bytes written, zeros left aside.

    Raises:
        ConversionFailed: ``new`` cannot be written.
        ImageUnreadable, TransferFailed, ConnectionLost, Cancelled, and what ``look`` raises.
    """
    with tools.images.open_for_reading([(old, OLD_FORMAT)]) as reader:
        meter, watch = Meter(tools.observer), _Watch(look)
        meter.expect(
            bytes_to_read(runs_to_copy(reader, tracked=False, parent_size=None), reader.size)
        )

        def passed(amount: int) -> None:
            meter.add(amount)
            watch.look()

        try:
            image = tools.own_images.qcow2(new, reader.size)
            try:
                layer = NewLayer(image, _NoIndex())
                copier = DiskCopier(
                    reader, EmptyIndex(), layer, tools.fingerprint, passed, tools.pace
                )
                copied = copier.copy(runs_to_copy(reader, tracked=False, parent_size=None))
                image.finish()
            finally:
                image.discard()
        except StoreFailed as error:
            raise ConversionFailed(error.path, error.reason) from error
    return copied.written_bytes


class _NoIndex:
    """Takes fingerprints that nobody needs."""

    def add(self, block: int, fingerprint: bytes) -> None:
        """See ``ports.IndexWriter``."""

    def finish(self) -> tuple[WrittenFile, int]:
        """See ``ports.IndexWriter``."""
        return WrittenFile(0, ""), 0

    def discard(self) -> None:
        """See ``ports.IndexWriter``."""


class _Watch:
    """Has something looked at now and then, from threads that have other work to do."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._next = time.monotonic() + _LOOK_SECONDS

    def look(self) -> None:
        """Look, if it is time and no other thread does."""
        if time.monotonic() < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            self._look()
            self._next = time.monotonic() + _LOOK_SECONDS
        finally:
            self._lock.release()
