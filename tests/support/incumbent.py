"""virtnbdbackup, as Debian ships it: the tool that the program is compared with."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.libvirt_host import LibvirtHost

BACKUP, RESTORE = "virtnbdbackup", "virtnbdrestore"
_SECONDS = 60


class Incumbent:
    """Its commands for one VM; everything that they write lies under ``folder``.

    ``folder`` must have a short path: the sockets of the tool lie in it.
    """

    def __init__(self, host: LibvirtHost, vm: str, folder: Path) -> None:
        self._host = host
        self._vm = vm
        self._folder = folder
        self.backups = folder / "backups"
        folder.mkdir()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables to run it with: it leaves logs where temporary files go."""
        return {**os.environ, "TMPDIR": str(self._folder)}

    def backup_command(self, level: str, *options: str) -> list[str]:
        """The command line of a backup; levels are ``full``, ``inc``, ``diff``, ``auto``."""
        into = ["-o", str(self.backups), "-S", str(self._folder), "-f", str(self._folder / "s")]
        return [BACKUP, "-n", "-U", self._uri, "-d", self._vm, "-l", level, *into, *options]

    def restore_command(self, target: Path, *options: str) -> list[str]:
        """The command line of a restore of the newest point into the folder ``target``."""
        other = ["-L", str(self._folder / "restore.log"), "-f", str(self._folder / "r")]
        places = ["-i", str(self.backups), "-o", str(target)]
        return [RESTORE, "-n", "-U", self._uri, *places, *other, *options]

    def backup(self, level: str, *options: str) -> int:
        """Run a backup. Returns its exit code."""
        return self._run(self.backup_command(level, *options))

    def restore(self, target: Path, *options: str) -> int:
        """Run a restore. Returns its exit code."""
        return self._run(self.restore_command(target, *options))

    def backup_that_dies(self, level: str) -> None:
        """Kill a backup whose job has begun; it waits a second before it reads anything."""
        before = self._checkpoints()
        with subprocess.Popen(
            self.backup_command(level),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        ) as process:
            while not self._checkpoints() > before:
                assert process.poll() is None, "the backup ended before it could be killed"
                time.sleep(0.02)
            process.kill()
        self._host.call("abort_job", self._vm)

    def _checkpoints(self) -> int:
        """How many checkpoints it has put down, which it does once its job has begun."""
        files = (self.backups / "checkpoints").glob("*.xml")
        return sum(file.read_text().rstrip().endswith("</domaincheckpoint>") for file in files)

    def clear(self) -> None:
        """Remove all backups."""
        shutil.rmtree(self.backups, ignore_errors=True)

    @property
    def _uri(self) -> str:
        # With a transport in the URI it insists on a user and a password.
        return self._host.uri.replace("qemu+unix:", "qemu:")

    def _run(self, command: list[str]) -> int:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env=self.environment,
        )
        with (self._folder / "output.log").open("ab") as log:
            log.write(done.stdout + done.stderr)
        return done.returncode
