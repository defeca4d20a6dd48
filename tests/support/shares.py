"""A folder that looks like Unraid's ``/mnt``: pools, and their files together under ``user``."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support.mounts import fuse
from tests.support.vm import EMULATOR
from vm_babysitter.adapters.real_path import RealPath, Shares, real_path

_ATTRIBUTE = "user.LOCATION"
"""Kept with the file, and shown through the file system in user space."""


class UnraidMounts:
    """One pool, ``cache``, shown under ``user``; a file's location must be set to be known."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.cache, self.user = base / "cache", base / "user"
        self._shares = Shares(_ATTRIBUTE, base, (self.user, base / "user0"))

    def resolve(self, path: str | Path) -> RealPath:
        """Find the file as on Unraid."""
        return real_path(str(path), self._shares)

    def shown(self, path: Path) -> Path:
        """Return the path under which a file of the pool is shown."""
        return self.user / path.relative_to(self.cache)

    def locate(self, path: Path, location: str = "cache") -> None:
        """Have a file, or what is at its place, say where it lies."""
        os.setxattr(path, _ATTRIBUTE, os.fsencode(location))


def emulator_below(script: Path, user: Path, beneath: Path) -> Path:
    """Write an emulator that opens disks named under ``user`` in ``beneath``, as Unraid's does."""
    script.write_text(f'#!/bin/bash\nexec {EMULATOR} "${{@//"{user}"/"{beneath}"}}"\n')
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def unraid_mounts(base: Path) -> Iterator[UnraidMounts]:
    """Mount what is under ``base / "cache"`` (made if need be) at ``base / "user"``."""
    mounts = UnraidMounts(base)
    mounts.cache.mkdir(parents=True, exist_ok=True)
    with fuse(mounts.cache, mounts.user):
        yield mounts
