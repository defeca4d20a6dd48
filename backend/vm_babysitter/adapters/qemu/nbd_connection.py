"""One negotiated NBD connection over a unix socket."""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from vm_babysitter.adapters.qemu import nbd_protocol as wire
from vm_babysitter.adapters.qemu.nbd_protocol import Command, Feature, Reply, reason, request
from vm_babysitter.domain.errors import ConnectionLost, ProtocolViolation

TIMEOUT = 60.0
"""Seconds of silence after which a server counts as lost. A sleeping hard disk needs 15."""

_LONGEST_OPTION_REPLY = 65536  # bytes
_DISCARDED = 1 << 18  # bytes at a time
_LONGEST_PATH = 107  # bytes; what the kernel takes as the name of a unix socket


class Connection:
    """One connection to one export, negotiated and ready for requests.

    Not safe for threads, except that one may send while another receives, and that anyone
    may `abort`. Reads and writes that meet a dead or silent server raise ConnectionLost.
    """

    def __init__(
        self,
        address: str,
        export: str,
        *,
        contexts: Sequence[str] = (),
        structured: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        """Connect and negotiate.

        Args:
            address: path of the server's unix socket.
            export: name of the export.
            contexts: metadata contexts that the export has to offer.
            structured: ask for structured replies; implied by ``contexts``.
            timeout: seconds of silence after which the server counts as lost.

        Raises:
            ConnectionLost: nobody answers there.
            ProtocolViolation: the server lacks what we ask for, or talks something else.
        """
        self.address = address
        self.size = 0
        """Of the export, in bytes."""
        self.features = Feature(0)
        self.contexts: dict[int, str] = {}
        """The names of the metadata contexts by the numbers that replies use."""
        self.structured = False
        self._aborted = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._header = memoryview(bytearray(wire.STRUCTURED_REPLY.size))
        try:
            self.patience(timeout)
            self._connect()
            self._handshake()
            if structured or contexts:
                self._ask_for_structured_replies()
            if contexts:
                self._ask_for_contexts(export, contexts)
            self._go(export)
        except BaseException:
            self._socket.close()
            raise

    # -- requests and replies ---------------------------------------------------------------

    def send(
        self,
        command: Command,
        handle: int,
        offset: int,
        length: int,
        data: memoryview | None = None,
    ) -> None:
        """Send one request, with its data if it has any."""
        self.send_all([request(command, handle, offset, length)], data)

    def send_all(self, headers: Sequence[bytes], data: memoryview | None = None) -> None:
        """Send several requests at once; ``data`` belongs to the last of them."""
        parts: list[bytes | memoryview] = [*headers] if data is None else [*headers, data]
        try:
            left = sum(len(part) for part in parts) - self._socket.sendmsg(parts)
            if left:
                joined = data if data is not None and left <= len(data) else b"".join(parts)
                self._socket.sendall(joined[len(joined) - left :])
        except OSError as error:
            raise self._lost(error) from error

    def receive_into(self, buffer: memoryview) -> None:
        """Fill ``buffer`` with what the server sends."""
        while len(buffer):
            try:
                count = self._socket.recv_into(buffer, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise self._lost(error) from error
            if count == 0 or self._aborted:  # part of it may have been thrown away
                raise ConnectionLost(self.address, "the server closed the connection")
            buffer = buffer[count:]

    def receive(self, length: int) -> bytes:
        """Return the next ``length`` bytes the server sends."""
        data = bytearray(length)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_reply(self) -> Reply:
        """Return the next header the server sends; what belongs to it follows."""
        header = self._header[: wire.SIMPLE_REPLY.size]
        self.receive_into(header)
        magic = wire.U32.unpack_from(header)[0]
        if magic == wire.SIMPLE_MAGIC:
            _, error, handle = wire.SIMPLE_REPLY.unpack(header)
            return Reply(handle, True, error)
        if magic != wire.STRUCTURED_MAGIC or not self.structured:
            raise ProtocolViolation(f"a reply starts with {magic:#010x}")
        self.receive_into(self._header[wire.SIMPLE_REPLY.size :])
        _, flags, kind, handle, length = wire.STRUCTURED_REPLY.unpack(self._header)
        return Reply(handle, False, 0, bool(flags & wire.CHUNK_DONE), kind, length)

    def patience(self, seconds: float) -> None:
        """Set for how many seconds the server may be silent from now on."""
        self.silence = seconds
        interval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
        # Not settimeout(): that makes the socket non-blocking, and then MSG_WAITALL, which
        # gets a whole reply with one call, does not wait.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def close(self) -> None:
        """Say goodbye and close. Nothing may be in flight."""
        with suppress(ConnectionLost):
            self.send(Command.DISCONNECT, 0, 0, 0)
        self._socket.close()

    def abort(self) -> None:
        """Wake whoever waits on this connection; nothing works on it any more.

        Data that nobody will read is thrown away at once. A QEMU (7.2) that waits to send more
        spins until then, and if its job ends meanwhile, its guest stands still.
        """
        self._aborted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
            while self._socket.recv(_DISCARDED, socket.MSG_DONTWAIT):
                pass

    # -- negotiation ------------------------------------------------------------------------

    def _connect(self) -> None:
        if len(os.fsencode(self.address)) > _LONGEST_PATH:
            raise ConnectionLost(self.address, "the path is too long for a socket")
        try:
            self._socket.connect(self.address)
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> ConnectionLost:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
            why = f"the server was silent for {self.silence:g} seconds"
        else:
            why = reason(error.errno or 0)
        return ConnectionLost(self.address, why)

    def _handshake(self) -> None:
        if self.receive(8) != wire.NBD_MAGIC or self.receive(8) != wire.OPTION_MAGIC:
            raise ProtocolViolation("it does not greet like an NBD server of the new style")
        flags = wire.U16.unpack(self.receive(2))[0]
        if not flags & wire.FIXED_NEWSTYLE:
            raise ProtocolViolation("it does not speak the fixed new style")
        self.send_all([wire.U32.pack(flags & (wire.FIXED_NEWSTYLE | wire.NO_ZEROES))])

    def _ask_for_structured_replies(self) -> None:
        for _ in self._option(wire.Option.STRUCTURED_REPLY, b"", "structured replies"):
            raise ProtocolViolation("it answers with data where none belongs")
        self.structured = True

    def _ask_for_contexts(self, export: str, contexts: Sequence[str]) -> None:
        name = os.fsencode(export)
        queries = [os.fsencode(context) for context in contexts]
        body = wire.U32.pack(len(name)) + name + wire.U32.pack(len(queries))
        body += b"".join(wire.U32.pack(len(query)) + query for query in queries)
        for kind, data in self._option(wire.Option.SET_META_CONTEXT, body, f"export {export!r}"):
            if kind != wire.ANSWER_META_CONTEXT or len(data) < wire.U32.size:
                raise ProtocolViolation("it answers the question for metadata with something else")
            self.contexts[wire.U32.unpack_from(data)[0]] = os.fsdecode(data[wire.U32.size :])
        for context in contexts:
            if context not in self.contexts.values():
                raise ProtocolViolation(f"it does not offer the metadata {context!r}")

    def _go(self, export: str) -> None:
        name = os.fsencode(export)
        body = wire.U32.pack(len(name)) + name + wire.U16.pack(0)
        told = False
        for kind, data in self._option(wire.Option.GO, body, f"export {export!r}"):
            if kind == wire.ANSWER_INFO and data[:2] == b"\0\0":
                if len(data) != wire.EXPORT_INFO.size:
                    raise ProtocolViolation("it describes the export in a wrong length")
                _, self.size, features = wire.EXPORT_INFO.unpack(data)
                self.features, told = Feature(features), True
        if not told:
            raise ProtocolViolation("it does not say how large the export is")

    def _option(self, option: wire.Option, body: bytes, what: str) -> Iterator[tuple[int, bytes]]:
        """Negotiate one option and yield the server's answers up to its acknowledgement."""
        self.send_all([wire.OPTION_REQUEST.pack(wire.OPTION_MAGIC, option, len(body)) + body])
        while True:
            magic, answered, kind, length = wire.OPTION_REPLY.unpack(
                self.receive(wire.OPTION_REPLY.size)
            )
            if magic != wire.OPTION_REPLY_MAGIC or answered != option:
                raise ProtocolViolation("it answers another question than we asked")
            if length > _LONGEST_OPTION_REPLY:
                raise ProtocolViolation(f"it answers a question with {length} bytes")
            data = self.receive(length)
            if kind & wire.ANSWER_ERROR:
                words = data.decode("utf-8", "replace") or f"error {kind - wire.ANSWER_ERROR}"
                raise ProtocolViolation(f"it refuses {what}: {words}")
            if kind == wire.ANSWER_ACK:
                return
            yield kind, data
