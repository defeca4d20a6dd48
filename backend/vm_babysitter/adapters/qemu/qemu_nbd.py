"""Export an image with ``qemu-nbd``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vm_babysitter.adapters.process import start
from vm_babysitter.adapters.qemu.export import (
    NAME,
    Export,
    private_directory,
    stop_writer,
    wait_for,
)
from vm_babysitter.adapters.qemu.nodes import as_filename

_CLIENTS = 16  # more than the connections we make; the default, 1, allows one at a time


class QemuNbd:
    """The usual way. ``qemu-nbd`` is part of the package with ``qemu-img``, mostly."""

    @contextmanager
    def export(
        self, node: Mapping[str, object], *, writable: bool = False, bitmap: str | None = None
    ) -> Iterator[Export]:
        """Serve a block node until the end of the context, see `export.Way`."""
        with private_directory() as directory:
            socket, ready = directory / "nbd.socket", directory / "ready.pid"
            argv = ["qemu-nbd", f"--socket={socket}", f"--export-name={NAME}", "--persistent"]
            argv += [f"--shared={_CLIENTS}", f"--pid-file={ready}"]
            argv += ["--cache=writeback", "--discard=unmap", "--detect-zeroes=off"]
            argv += [] if writable else ["--read-only"]
            argv += [] if bitmap is None else [f"--bitmap={bitmap}"]
            with start([*argv, as_filename(node)]) as server:
                # The socket is there before the image is open; the pid comes after both.
                wait_for(lambda: ready.exists() or None, server)
                yield Export(str(socket), NAME)
                if writable:
                    stop_writer(server)
