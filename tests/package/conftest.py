"""The package, made once for what this checkout says."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from build.places import CACHE, REPOSITORY

_SOURCES = ("backend", "build", "plugin", "webgui", "CHANGELOG.md", "LICENSE", "pyproject.toml")
_KEPT = 2


@dataclass(frozen=True)
class Built:
    """What `make package` made, in one folder."""

    folder: Path

    @property
    def package(self) -> Path:
        (package,) = self.folder.glob("*.txz")
        return package

    def document(self, name: str) -> Path:
        return self.folder / name


def build(folder: Path, cache: Path | None = None) -> Built:
    """Make the package, compressed less than one for users."""
    command = [sys.executable, "-m", "build.package", "--quick", "--any-version"]
    done = subprocess.run(
        [*command, "--packages", str(folder), "--documents", str(folder)],
        cwd=REPOSITORY,
        env={
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VMB_BUILD_CACHE": str(cache or CACHE),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(folder)


@pytest.fixture(scope="session")
def built() -> Built:
    """The package of this checkout; the one of the last run if nothing has changed."""
    place = CACHE / "built"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of this run want it, too
        made = place / _fingerprint()
        if not made.is_dir():
            with tempfile.TemporaryDirectory(dir=place, prefix=".new-") as scratch:
                build(Path(scratch) / "made").folder.rename(made)
            for old in sorted(place.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(old)
    return Built(made)


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for source in _SOURCES:
        top = REPOSITORY / source
        for path in sorted([top] if top.is_file() else top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = str(path.relative_to(REPOSITORY))
                digest.update(f"{name} {path.stat().st_mode}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
