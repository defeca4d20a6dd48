"""A computer that has our program and the backup folder, and hardly anything else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mounts import bound, read_only
from tests.support.world import environment

_MISSING = ("libvirt", "libvirt_qemu", "lxml")


class Rescuer:
    """Runs our command line where no libvirt is installed, and QEMU only if wanted.

    ``folder`` is where it keeps what makes the difference.
    """

    def __init__(self, folder: Path) -> None:
        self._modules, self._nothing = folder / "modules", folder / "nothing"
        for path in (self._modules, self._nothing):
            path.mkdir()
        for name in _MISSING:
            text = f'raise ImportError("No module named {name!r}", name="{name}")\n'
            (self._modules / f"{name}.py").write_text(text)

    def call(
        self, store: Path, *arguments: str | Path, qemu: bool = False, expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that must end with this status."""
        place = ["--standalone", "--allow-ram-store", "--store", str(store)]
        variables = environment()
        path = os.pathsep.join([str(self._modules), variables["PYTHONPATH"]])
        variables |= {"PYTHONPATH": path, "HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-m", "vm_babysitter", *place, *arguments],
            env=variables if qemu else variables | {"PATH": str(self._nothing)},
            cwd="/",
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == expect, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done


@contextmanager
def for_reading(store: Path, place: Path) -> Iterator[Path]:
    """Have a backup folder at ``place`` where nobody, root neither, can write."""
    with bound(store, place), read_only(place):
        yield place
