"""Export an image with the emulator, where ``qemu-nbd`` is missing.

The emulator starts without a machine, halted: it does nothing but what its monitor is told.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vm_babysitter.adapters.process import start
from vm_babysitter.adapters.qemu.export import (
    NAME,
    START_TIMEOUT,
    Export,
    private_directory,
    stop_writer,
    wait_for,
)
from vm_babysitter.adapters.qemu.qmp import Qmp, QmpError
from vm_babysitter.domain.errors import CommandFailed, ConnectionLost

PROGRAM = Path("/usr/bin/qemu-system-x86_64")
"""By its path: what the PATH finds on Unraid is a wrapper that changes the arguments."""

_IDLE = ("-M", "none", "-nodefaults", "-no-user-config", "-S", "-display", "none")
_REFUSED = 1  # the exit status we give to what the monitor refuses


class Emulator:
    """The other way: slower to start, otherwise the same code as in ``qemu-nbd``."""

    def __init__(self, program: Path = PROGRAM) -> None:
        """Use this emulator."""
        self._program = program

    @contextmanager
    def export(
        self, node: Mapping[str, object], *, writable: bool = False, bitmap: str | None = None
    ) -> Iterator[Export]:
        """Serve a block node until the end of the context, see `export.Way`.

        The node is opened read-only for reading, so a bitmap can be served as it is: QEMU
        refuses a recording bitmap only where its node could be written.
        """
        with private_directory() as directory:
            monitor, socket = directory / "qmp.socket", directory / "nbd.socket"
            chardev = f"socket,id=qmp,path={_escaped(monitor)},server=on,wait=off"
            monitor_arguments = ["-chardev", chardev, "-mon", "chardev=qmp,mode=control"]
            with start([str(self._program), *_IDLE, *monitor_arguments]) as server:
                with wait_for(lambda: _connected(monitor), server) as qmp:
                    try:
                        _serve(qmp, node, socket, writable=writable, bitmap=bitmap)
                    except QmpError as error:
                        raise CommandFailed(server.program, _REFUSED, str(error)) from error
                    yield Export(str(socket), NAME)
                if writable:
                    stop_writer(server)


def _serve(
    qmp: Qmp, node: Mapping[str, object], socket: Path, *, writable: bool, bitmap: str | None
) -> None:
    qmp.execute("blockdev-add", {**node, "node-name": NAME})
    address = {"type": "unix", "data": {"path": str(socket)}}
    qmp.execute("nbd-server-start", {"addr": address})
    export: dict[str, object] = {
        "type": "nbd",
        "id": NAME,
        "node-name": NAME,
        "name": NAME,
        "writable": writable,
    }
    if bitmap is not None:
        export["bitmaps"] = [bitmap]
    qmp.execute("block-export-add", export)


def _connected(monitor: Path) -> Qmp | None:
    try:
        return Qmp(monitor, START_TIMEOUT)
    except ConnectionLost:
        return None  # the socket is not there yet, or not listening


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
