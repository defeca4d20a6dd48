"""A folder with what the plugin meets on an Unraid server, and the plugin as installed there."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import Api, until
from tests.support.mounts import lazy_disk
from tests.support.world import environment

REPOSITORY = Path(__file__).parents[2]
NAME = "vm-babysitter"
_RECORD = """#!/bin/bash
printf '%s\\n' "$*" >>{log}
"""
_PROGRAM = """#!/bin/bash
export PYTHONPATH={path} {more}
for word; do [[ $word == serve ]] && set -- "$@" --uri {uri} --allow-ram-store; done
exec {python} -m vm_babysitter "$@"
"""


_UPDATE_CRON = """#!/bin/bash
for link in {root}/var/log/plugins/*.plg; do
  name=${{link##*/}}
  cat {root}/boot/config/plugins/"${{name%.plg}}"/*.cron 2>/dev/null
done >{crontab}
"""


@dataclass(frozen=True)
class Ran:
    """A script that has ended."""

    code: int
    said: str
    seconds: float


class UnraidHost:
    """Everything below ``root``, a short path. Its one pool, ``cache``, is mounted in ``array``."""

    def __init__(self, root: Path, uri: str = "test:///default") -> None:
        self.root = root
        self.plugin = root / "usr/local/emhttp/plugins" / NAME
        self.pool = root / "mnt/cache"
        self.runtime = root / "run" / NAME
        self.config = root / "boot/config/plugins" / NAME
        self.api = Api(self.runtime / "api/api.socket")
        self._var = root / "var/local/emhttp/var.ini"
        self._libvirtd = root / "var/run/libvirt/libvirtd.pid"
        self._logs = {name: root / f"{name}.log" for name in ("notify", "logger")}
        self._install(uri)

    def _install(self, uri: str) -> None:
        for tree, place in (("plugin", self.root), ("webgui", self.plugin)):
            if (REPOSITORY / tree).is_dir():
                shutil.copytree(REPOSITORY / tree, place, dirs_exist_ok=True)
        for folder in (self.config, self.pool, self._var.parent, self._libvirtd.parent):
            folder.mkdir(parents=True)
        (self.root / "run").mkdir(exist_ok=True)
        pools = self.root / "boot/config/pools"
        pools.mkdir()
        (pools / "cache.cfg").write_text("")
        self._program(
            "usr/local/emhttp/webGui/scripts/notify", _RECORD.format(log=self._logs["notify"])
        )
        self._program("logger", _RECORD.format(log=self._logs["logger"]))
        self.have_python(uri)

    def have_python(self, uri: str = "test:///default", more: str = "") -> None:
        """Have the command of the plugin: this checkout's, with variables ``more``."""
        self._program(
            f"usr/local/sbin/{NAME}",
            _PROGRAM.format(
                path=shlex.quote(environment()["PYTHONPATH"]),
                python=shlex.quote(sys.executable),
                uri=shlex.quote(uri),
                more=more,
            ),
        )

    def have_program(self, text: str) -> None:
        """Have another command in its place."""
        self._program(f"usr/local/sbin/{NAME}", text)

    def have_update_cron(self, crontab: Path) -> None:
        """Have the script with which Unraid puts its table for cron together."""
        text = _UPDATE_CRON.format(root=self.root, crontab=crontab)
        self._program("usr/local/sbin/update_cron", text)

    def _program(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    # -- the server ------------------------------------------------------------------------

    def array(self, state: str) -> None:
        """Have Unraid say how its array is; ``""``: it says nothing yet, as it boots."""
        if state:
            self._var.write_text(f'version="7.0.0"\nfsState="{state}"\n')
        else:
            self._var.unlink(missing_ok=True)

    @contextmanager
    def disks(self) -> Iterator[Path]:
        """Have the pool mounted, with the share ``system``. At the end nobody may use it."""
        with lazy_disk(self.root / "pool.image", self.pool):
            (self.pool / "system").mkdir(exist_ok=True)
            try:
                yield self.pool
                self.assert_disks_unused()
            finally:
                self.run("etc/rc.d/rc.vm-babysitter", "stop")

    def assert_disks_unused(self) -> None:
        """No process may have a file open there: it could not be unmounted."""
        device = self.pool.stat().st_dev
        users = [f"{pid}: {name}" for pid, name, where in _open_files() if where == device]
        assert not users, users

    def libvirtd_runs(self, runs: bool = True) -> None:
        """Have the VM service started or stopped, as far as files tell."""
        if runs:
            self._libvirtd.write_text("1\n")
        else:
            self._libvirtd.unlink()

    # -- the plugin ------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What scripts of the plugin are told: as on a server next to nothing."""
        return {
            "PATH": os.environ["PATH"],
            "VMB_ROOT": str(self.root),
            "VMB_LOGGER": str(self.root / "logger"),
            "VMB_SECOND": "0.05",
        }

    def run(self, script: str, *arguments: str, **more: str) -> Ran:
        """Run a script of the plugin; ``more`` is added to its environment."""
        path = self.root / script
        if not path.exists():
            path = self.plugin / script
        began = time.monotonic()
        # A pipe that a process in the background keeps open would be waited for.
        done = subprocess.run(
            [str(path), *arguments],
            env={**self.environment(), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, time.monotonic() - began)

    def popen(self, script: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a script of the plugin, whose output is its ``stdout``."""
        return subprocess.Popen(
            [str(self.root / script), *arguments],
            env={**self.environment(), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rc(self, verb: str, **more: str) -> Ran:
        """Run the rc script."""
        return self.run(f"etc/rc.d/rc.{NAME}", verb, **more)

    def event(self, name: str) -> float:
        """Have emhttpd tell of an event. Returns how many seconds the server waited for us."""
        path = self.plugin / "event" / name
        if not path.exists():
            return 0.0
        ran = self.run(str(path.relative_to(self.root)))
        assert (ran.code, ran.said) == (0, ""), ran
        return ran.seconds

    @property
    def pid(self) -> int | None:
        """The process of the daemon, None if there is none."""
        if self.rc("status").code != 0:
            return None
        return int((self.runtime / "daemon.pid").read_text().split()[0])

    def answers(self) -> None:
        """Wait until the daemon is ready."""
        until(self.api.alive, lambda: (self.said("logger"), self.said("notify")))

    def said(self, where: str) -> list[str]:
        """Return what was told to ``notify`` or ``logger``, a line each."""
        path = self._logs[where]
        return path.read_text().splitlines() if path.exists() else []


def _open_files() -> Iterator[tuple[str, str, int]]:
    """All that processes have open: process, name, device. They come and go meanwhile."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for file in (process / "fd").iterdir():
                with suppress(OSError):
                    yield process.name, str(file.readlink()), file.stat().st_dev
        except OSError:
            continue
