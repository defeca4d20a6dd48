"""Fixtures of the unit ring."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_RAM = Path("/dev/shm")


@pytest.fixture
def ram_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in RAM, where an fsync costs nothing; on a disk if there is none."""
    if not _RAM.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="vmb-", dir=_RAM))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
