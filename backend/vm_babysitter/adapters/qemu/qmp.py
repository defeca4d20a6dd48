"""Talk QMP, QEMU's monitor protocol, over a unix socket."""

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vm_babysitter.domain.errors import ConnectionLost


class QmpError(Exception):
    """QEMU refused a command; the text is in its words."""


class Qmp:
    """A QMP session, ready for commands."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Connect and leave the negotiation mode.

        Raises:
            ConnectionLost: nobody answers there.
        """
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self._answer()
            self.execute("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise ConnectionLost(str(path), error.strerror or str(error)) from error
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run a command and return its answer.

        Raises:
            QmpError: QEMU refused it.
            ConnectionLost: QEMU is gone or silent.
        """
        text = json.dumps({"execute": command, "arguments": arguments or {}})
        try:
            self._socket.sendall(text.encode() + b"\n")
            answer = self._answer()
            while "event" in answer:
                answer = self._answer()
        except OSError as error:
            raise ConnectionLost(str(self._path), error.strerror or str(error)) from error
        if "error" in answer:
            raise QmpError(answer["error"]["desc"])
        return answer["return"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def _answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise ConnectionLost(str(self._path), "QEMU closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer
