"""Opens the exports of a running backup job: ``ports.DiskExports``."""

from contextlib import AbstractContextManager

from vm_babysitter.adapters.qemu import nbd
from vm_babysitter.ports import DiskReader


class NbdExports:
    """Implements ``ports.DiskExports`` on QEMU's own NBD server."""

    def __init__(self, tuning: nbd.Tuning = nbd.DEFAULT) -> None:
        """``tuning`` says how hard to drive QEMU, and when its silence counts as a loss."""
        self._tuning = tuning

    def open(
        self, socket: str, export: str, bitmap: str | None
    ) -> AbstractContextManager[DiskReader]:
        """See the port."""
        return nbd.open_reader(socket, export, bitmap=bitmap, tuning=self._tuning)
