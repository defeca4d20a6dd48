"""A few commands over a QMP socket that belongs to the tests alone."""

import json
import socket
import struct
from pathlib import Path
from typing import Self, cast


class QmpRefused(Exception):
    """QEMU answered a command with an error."""


class Qmp:
    """An open QMP session; a context manager. One at a time per socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self._lines.readline()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    @property
    def pid(self) -> int:
        """The process that listens: QEMU itself."""
        size = struct.calcsize("3i")
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return cast(int, struct.unpack("3i", credentials)[0])

    def execute(self, command: str, **arguments: object) -> object:
        """Run one command and return what it returns; events are dropped."""
        request = json.dumps({"execute": command, "arguments": arguments})
        self._socket.sendall(request.encode() + b"\n")
        while True:
            line = self._lines.readline()
            if not line:
                raise ConnectionResetError("QEMU closed the QMP connection")
            reply = json.loads(line)
            if "error" in reply:
                raise QmpRefused(reply["error"]["desc"])
            if "return" in reply:
                return cast(object, reply["return"])

    def hmp(self, command: str) -> str:
        """Run one command of the human monitor; errors are only in the text it returns."""
        return cast(str, self.execute("human-monitor-command", **{"command-line": command}))
