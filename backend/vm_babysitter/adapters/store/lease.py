"""The lease of a backup folder: ``lease.json`` names the one host that writes to it.

It has no end: only ``take_over``, which a person asks for, gives the folder to another host. It
does what locks cannot, since those of many network file systems are not seen by other hosts, and
two hosts that do not write at once may all the same each believe to know what the other has.
"""

import contextlib
import logging
import shlex
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.damage import is_evidence
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.adapters.store.store_lock import in_turn
from vm_babysitter.domain.errors import Damaged, StoreFailed, StoreTaken
from vm_babysitter.domain.lease import Lease
from vm_babysitter.lib.atomicfile import NO_LINKS, fsync_directory, is_there, write_new
from vm_babysitter.ports import ThisHost

log = logging.getLogger(__name__)
_KIND = "lease"
_TRIES = 8
"""Looks at a lease that others take, remove or replace at the same time."""


class StoreLease:
    """The lease of one folder as one host sees it."""

    def __init__(self, store: Path, host: ThisHost, now: Callable[[], datetime]) -> None:
        self._store = store
        self._path = store / layout.LEASE_FILE
        self._own = store / f".{layout.LEASE_FILE}.{host.id[:8]}.tmp"
        self._host = host
        self._now = now

    def claim(self) -> None:
        """Do as ``hold`` before all else, and remove what a claim that was killed has left."""
        self.hold()
        with in_turn(self._own):  # else it may be that of another job, which claims just now
            failing(self._own, lambda: self._own.unlink(missing_ok=True))

    def hold(self) -> None:
        """Make sure that this host has the lease; one that nobody has is taken.

        Cheap, and to be called before everything that cannot be taken back.

        Raises:
            StoreTaken: another host has it.
            UnsupportedFormat, StoreFailed.
        """
        with contextlib.suppress(Damaged):
            lease = self.read()
            if lease is not None:
                self._check(lease)
                return
        with in_turn(self._own):  # other jobs of this host use the same working file
            self._hold()

    def _hold(self) -> None:
        for _ in range(_TRIES):
            try:
                lease = self.read()
            except Damaged as error:
                log.warning("%s This host takes the backup folder.", error)
                self._put_aside()
                lease = None
            if lease is not None:
                self._check(lease)
                return
            self._take()
        raise StoreFailed(str(self._path), "it cannot be taken: it keeps changing")

    def read(self) -> Lease | None:
        """Return who has it; None if nobody has.

        Raises:
            Damaged, UnsupportedFormat, StoreFailed.
        """
        if not failing(self._path, lambda: is_there(self._path)):
            return None
        try:
            return _read(self._path)
        except Damaged:
            if not failing(
                self._path, lambda: is_there(self._path)
            ):  # it was removed in this moment
                return None
            raise

    def take_over(self) -> None:
        """Give the folder to this host, whoever has it.

        Raises:
            StoreFailed.
        """
        documents.write(self._path, _KIND, self._lease())

    def _lease(self) -> Lease:
        return Lease(self._host.id, self._host.name, self._now())

    def _check(self, lease: Lease) -> None:
        if lease.host == self._host.id:
            return
        command = shlex.join(["check-store", "--take-over", "--", str(self._store)])
        raise StoreTaken(
            str(self._store),
            lease.host_name,
            f"{lease.taken:%Y-%m-%d %H:%M} UTC",
            f"`vm-babysitter --standalone {command}`",
        )

    def _take(self) -> None:
        """Put our lease where none is; what somebody else has put there meanwhile stays.

        It gets its name when it is whole: hosts that begin at once are told who came first by
        the file system, and all read it again.
        """
        mark = self._store / layout.STORE_FILE
        if not failing(mark, partial(is_there, mark)):  # a disk that is no longer mounted
            raise StoreFailed(str(self._store), f"{layout.STORE_FILE} is no longer in it")
        content = documents.encode(_KIND, self._lease())

        def put() -> None:
            self._own.unlink(missing_ok=True)
            try:
                write_new(self._own, content)
                self._path.hardlink_to(self._own)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with contextlib.suppress(FileExistsError):
                    write_new(self._path, content)  # one that is torn counts as damaged
            finally:
                self._own.unlink(missing_ok=True)
            fsync_directory(self._store)

        failing(self._path, put)

    def _put_aside(self) -> None:
        """Remove a damaged lease; one that another host has put in its place comes back.

        None that is whole is ever lost: it is moved to a name that only we have, and looked at
        there.
        """

        def move() -> None:
            self._own.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._path.rename(self._own)

        failing(self._path, move)
        with contextlib.suppress(Damaged):
            _read(self._own)
            with contextlib.suppress(FileExistsError):
                failing(self._path, lambda: self._path.hardlink_to(self._own))
        failing(self._own, lambda: self._own.unlink(missing_ok=True))


def _read(path: Path) -> Lease:
    """Read a lease. One that the medium cannot give back may still be another host's."""
    try:
        return documents.read(path, _KIND, Lease)
    except Damaged as error:
        if is_evidence(error):
            raise StoreFailed(error.path, error.reason) from error
        raise
