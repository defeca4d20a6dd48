"""A real libvirtd of the tests' own, in a mount namespace where nobody else meets it."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.support.libvirt_host import (
    Worker,
    end_emulators,
    kill_and_wait,
    kill_emulators,
    write_qemu_conf,
)

_REAPER = Path(__file__).with_name("reaper.py")

# Its places are compiled in, so folders of ours are mounted over them, seen by it alone.
_SCRIPT = """
set -eu
for pair in etc:/etc run:/run lib:/var/lib cache:/var/cache log:/var/log; do
  place="${pair#*:}/libvirt"
  mkdir -p "$place"
  mount --bind "$1/${pair%%:*}" "$place"
done
# Where TPM emulators log, and where certificates for new ones are made.
for pair in log:/var/log/swtpm ca:/var/lib/swtpm-localca; do
  [ ! -d "${pair#*:}" ] || mount --bind "$1/${pair%%:*}" "${pair#*:}"
done
exec /usr/sbin/libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/libvirtd.pid"
"""


class PrivateLibvirtd:
    """A private libvirtd under ``root`` (a LibvirtHost); any number of clients.

    It is what the engine meets in real life: RPC, restarts, crashes. ``root`` holds its state
    (``lib``, ``etc``) and what a reboot wipes (``run``).
    """

    def __init__(self, root: Path, user: str = "root") -> None:
        self.root = root
        self.uri = f"qemu+unix:///system?socket={root}/run/libvirt-sock"
        self._pid_file = root / "libvirtd.pid"
        self._reapers: list[subprocess.Popen[bytes]] = []
        self._worker: Worker | None = None
        for name in ("run", "lib", "cache", "log", "ca"):
            (root / name).mkdir(exist_ok=True)
        write_qemu_conf(root / "etc", user)
        (root / "etc" / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{root}/run"\n'
            'auth_unix_rw = "none"\n'
            'auth_unix_ro = "none"\n'
            f'host_uuid = "{uuid.uuid4()}"\n'  # nothing migrates to a host of the same one
            f'log_outputs = "3:file:{root}/log/libvirtd.log"\n'
        )

    def call(self, operation: str, *arguments: object) -> object:
        """Run one operation over a connection that is kept."""
        if self._worker is None:
            self._worker = Worker(self.uri, self.root / "worker.log")
        return self._worker.call(operation, *arguments)

    def start(self) -> None:
        """Start libvirtd and wait until it answers."""
        socket = self.root / "run" / "libvirt-sock"
        socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        unshare = ["unshare", "--mount", "--propagation", "private"]
        script = ["/bin/sh", "-c", _SCRIPT, "sh", str(self.root)]
        with (self.root / "log" / "stderr.log").open("ab") as log:
            reaper = subprocess.Popen(
                [sys.executable, str(_REAPER), *unshare, *script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._reapers.append(reaper)
        deadline = time.monotonic() + 30
        while not socket.exists():
            if reaper.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"libvirtd did not start; see {self.root}/log")
            time.sleep(0.02)
        self.call("ping")

    def kill(self) -> None:
        """Kill libvirtd with SIGKILL. VMs go on."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if self._pid_file.exists():
            kill_and_wait(int(self._pid_file.read_text()))

    def restart(self) -> None:
        """Kill libvirtd and start it again."""
        self.kill()
        self.start()

    def power_cut(self) -> None:
        """Kill libvirtd and all VMs, and lose what a reboot loses. ``start`` boots again."""
        self.kill()
        kill_emulators(self.root)
        self._lose_ram()

    def _lose_ram(self) -> None:
        for name in ("run", "lib/qemu/domain-*", "lib/qemu/checkpoint"):
            for path in self.root.glob(f"{name}/**/*"):
                if not path.is_dir():
                    path.unlink()

    def shut_down(self) -> None:
        """End VMs and libvirtd in good order, and lose what a reboot loses."""
        end_emulators(self.root)
        self.kill()
        self._lose_ram()

    def close(self) -> None:
        """Kill libvirtd and the VMs that are left."""
        self.kill()
        kill_emulators(self.root)
        for reaper in self._reapers:
            reaper.wait(30)
