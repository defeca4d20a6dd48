"""The file of the journal: opened as its file system allows, set aside if it is damaged."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from vm_babysitter.adapters.sqlite import schema
from vm_babysitter.adapters.store.place import filesystem_type
from vm_babysitter.domain.errors import JournalFailed, UnsupportedFormat
from vm_babysitter.ports import Clock

_PATIENCE = 5.0
"""Seconds to wait for another process that has the file locked."""
_WAL_ALLOWED = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "overlay"}
)
"""File systems on which processes share memory of a file, and keep the order of writes."""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_COMPANIONS = ("", "-wal", "-shm", "-journal")
_KEPT = 3
"""Damaged files that are kept, the newest."""


class _Damaged(Exception):
    """What is there is not the journal that was written."""


class Database:
    """Opens the file when it is needed, and again after a failure. Safe for threads."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """``path`` lies in a folder that is there: a pool that is gone is not made up for."""
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._existed = False
        """Whether this process has had the file open."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Have the database open, and to oneself.

        Raises:
            JournalFailed: it cannot be read, or was damaged; then the next call finds a new one.
        """
        with self._lock, self._translated():
            yield self._opened()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Have a transaction: all that is done in it stays, or none of it. Raises as above."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    # -- how ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            reason = self._set_aside(str(error)) if code in _DAMAGED else str(error)
            raise self._failed(reason) from error
        except _Damaged as error:
            self.close()
            raise self._failed(self._set_aside(str(error))) from error
        except UnsupportedFormat as error:
            self.close()
            raise self._failed(str(error).rstrip(".")) from error
        except OSError as error:
            self.close()
            raise self._failed(error.strerror or str(error)) from error

    def _failed(self, reason: str) -> JournalFailed:
        return JournalFailed(str(self.path), reason)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._on_disk() != self._inode:
            # What we wrote would be seen by nobody.
            self.close()
            raise self._failed("somebody removed or replaced it; a new one is begun")
        if self._connection is None:
            lost = self._why_new()
            self._connection = self._open()
            self._inode = self._on_disk()
            if lost:
                self._connection.execute("UPDATE marks SET value = ? WHERE name = 'lost'", (lost,))
            self._existed = True
        return self._connection

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        return state.st_dev, state.st_ino

    def _why_new(self) -> str:
        """Return why the file is going to be a new one although there was one, if so."""
        if self.path.exists() and self.path.stat().st_size:
            return ""
        aside = self._aside()
        if aside:
            return f"the journal was damaged and was set aside as {aside[-1].name}"
        emptied = self.path.exists() or self._existed
        return "the journal was removed or emptied" if emptied else "there was no journal"

    def _open(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            raise self._failed("its folder is not there")
        # Before SQLite does, so that nobody else can read it; what it puts beside it is like it.
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        shared = filesystem_type(self.path.parent) in _WAL_ALLOWED
        if not shared:
            # Also for what another file system has left: without memory that is shared.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        found = schema.version(connection)
        if found > len(schema.VERSIONS):
            raise UnsupportedFormat(str(self.path), found, len(schema.VERSIONS))
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise _Damaged(state)
        if not found and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise _Damaged("it is a database of something else")
        connection.execute(f"PRAGMA journal_mode = {'WAL' if shared else 'DELETE'}")
        # Stays even if the power fails: there are few writes.
        connection.execute("PRAGMA synchronous = FULL")
        schema.migrate(connection)

    def _set_aside(self, reason: str) -> str:
        """Rename the file and what belongs to it; return what has become of it, in words."""
        reason = " ".join(reason.split())
        stamp = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{number}")
        try:
            for end in _COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{end}").rename(f"{aside}{end}")
            for old in self._aside()[:-_KEPT]:
                for end in _COMPANIONS:
                    Path(f"{old}{end}").unlink(missing_ok=True)
        except OSError as error:
            return f"it is damaged ({reason}) and cannot be set aside: {error.strerror}"
        return f"it is damaged ({reason}) and was set aside as {aside.name}; a new one is begun"

    def _aside(self) -> list[Path]:
        found = self.path.parent.glob(f"{self.path.name}.damaged-*")
        return sorted(p for p in found if not p.name.endswith(_COMPANIONS[1:]))
