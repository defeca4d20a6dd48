"""The JSON documents of the store, format 1: read with all checks, written atomically.

Each is an envelope ``{"format", "kind", "digest", "body"}``; the digest is over the body, so
that a changed or damaged document is never taken for what was written.
"""

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from blake3 import blake3

from vm_babysitter.domain.chain import ChainState
from vm_babysitter.domain.errors import Damaged, StoreFailed, UnsupportedFormat
from vm_babysitter.lib.atomicfile import write_atomically

FORMAT = 1
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENOTDIR})
"""What opening a link to itself, a socket, or something in a file says."""

BAD_MEDIUM = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EILSEQ})
"""What file systems say of data that they cannot give back as it was written."""
_PIECE = 64 << 10
_LARGEST = 16 << 20
"""Bytes. A manifest has some KiB: what is larger is none of ours, and shall not fill memory."""

P = ParamSpec("P")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class StoreDocument:
    """``store.json``."""

    id: str
    created: datetime


@dataclass(frozen=True, slots=True)
class VmDocument:
    """``vm.json``."""

    uuid: str
    names: tuple[str, ...]
    """All names the VM had, the newest last."""


@dataclass(frozen=True, slots=True)
class ChainDocument:
    """``chain.json``."""

    id: str
    vm_uuid: str
    state: ChainState
    why: str
    created: datetime


def encode(kind: str, document: object) -> bytes:
    """Return the file content of a document."""
    body = msgspec.to_builtins(document)
    envelope = {"format": FORMAT, "kind": kind, "digest": _digest(body), "body": body}
    return json.dumps(envelope, indent=1, ensure_ascii=False).encode() + b"\n"


def decode(content: bytes, kind: str, type_: type[D], path: Path) -> D:
    """Return the document in a file's content.

    Raises:
        UnsupportedFormat: written by a newer version.
        Damaged: anything else that is not exactly what was written.
    """
    try:
        envelope = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(str(path), f"it is no JSON ({error})") from error
    number = envelope.get("format") if isinstance(envelope, dict) else None
    if not isinstance(number, int) or number < 1:
        raise Damaged(str(path), "it is no document of a backup folder")
    if number > FORMAT:
        raise UnsupportedFormat(str(path), number, FORMAT)
    if envelope.get("kind") != kind:
        raise Damaged(str(path), f"it is a {envelope.get('kind')!r} document, not a {kind!r}")
    body = envelope.get("body")
    try:
        genuine = envelope.get("digest") == _digest(body)
    except (ValueError, RecursionError):  # what JSON can say and nobody wrote
        genuine = False
    if not genuine:
        raise Damaged(str(path), "its content does not match its digest")
    try:
        return msgspec.convert(body, type_)
    except msgspec.ValidationError as error:
        raise Damaged(str(path), f"a field is wrong: {error}") from error


def read(path: Path, kind: str, type_: type[D]) -> D:
    """Read a document.

    Raises:
        Damaged: missing, not what was written, or on a medium that cannot give it back; the
            last has an OSError of ``BAD_MEDIUM`` as its cause.
        UnsupportedFormat, StoreFailed.
    """
    return decode(_content(path), kind, type_, path)


def write(path: Path, kind: str, document: object) -> None:
    """Write a document atomically. Raises StoreFailed."""
    failing(path, lambda: write_atomically(path, encode(kind, document)))


def failing(path: Path, action: Callable[[], D]) -> D:
    """Run ``action``; an OSError of it becomes StoreFailed."""
    try:
        return action()
    except OSError as error:
        raise StoreFailed(str(path), error.strerror or str(error)) from error


def as_failures(function: Callable[Concatenate[Path, P], D]) -> Callable[Concatenate[Path, P], D]:
    """Have every OSError of a function, whose first argument is the path, become StoreFailed.

    For looks: asking whether something is there can fail anywhere, too (a share that is away).
    """

    @wraps(function)
    def wrapped(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> D:
        return failing(path, lambda: function(path, *args, **kwargs))

    return wrapped


def _content(path: Path) -> bytes:
    """Read a file; what else may have its name is neither waited for nor a failure of the store."""
    try:
        # A pipe would keep us waiting for ever without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Damaged(str(path), "it is no file")
            return _read_all(descriptor, path)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise Damaged(str(path), "it is missing") from error
    except OSError as error:
        if error.errno in _NO_FILE:
            raise Damaged(str(path), "it is no file") from error
        if error.errno in BAD_MEDIUM:  # one rotten document must not make all others useless
            raise Damaged(str(path), error.strerror or str(error)) from error
        raise StoreFailed(str(path), error.strerror or str(error)) from error


def _read_all(descriptor: int, path: Path) -> bytes:
    content = bytearray()
    while part := os.read(descriptor, _PIECE):
        content += part
        if len(content) > _LARGEST:
            raise Damaged(str(path), "it is too large for a document")
    return bytes(content)


def _digest(body: Any) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3(text.encode()).hexdigest()
