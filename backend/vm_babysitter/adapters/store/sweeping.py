"""Removing what an unfinished attempt left in the store, so that a crash half way is harmless."""

import shutil
from pathlib import Path

from vm_babysitter.adapters.store import layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.domain.chain import Attempt
from vm_babysitter.lib.atomicfile import fsync_directory, is_there


def remove_attempt(chain: Path, attempt: Attempt, *, keep_mark: bool = False) -> None:
    """Remove an unfinished point and then its mark; of a committed point only the mark.

    The mark goes last: a crash in between leaves a directory that still counts as unfinished.
    A link that somebody has put in its place stays, and what it leads to.
    """
    point, mark = chain / attempt.directory, chain / layout.attempt_file(attempt.directory)

    def remove() -> None:
        theirs = point.is_symlink() or not point.is_dir()
        if not theirs and not is_there(point / layout.POINT_FILE):
            shutil.rmtree(point)
            fsync_directory(chain)
        if not keep_mark:
            mark.unlink(missing_ok=True)
            fsync_directory(chain)

    failing(point, remove)


def remove_empty_chain(chain: Path) -> None:
    """Remove the directory of a chain if there is nothing in it but what beginning it wrote.

    Of any other chain remove the marks of attempts that were never completed: nothing tells of
    them, and no attempt is under way. One that is a link is somebody else's.
    """

    def remove() -> None:
        if chain.is_symlink() or not chain.is_dir():
            return
        entries = list(chain.iterdir())
        if all(layout.BEGUN_CHAIN_PATTERN.fullmatch(entry.name) for entry in entries):
            for entry in entries:
                entry.unlink()
            chain.rmdir()
            fsync_directory(chain.parent)
            return
        for entry in entries:
            if layout.TORN_MARK_PATTERN.fullmatch(entry.name):
                entry.unlink()

    failing(chain, remove)
