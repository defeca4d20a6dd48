"""A host as the fail-safe of the autostart meets it; virsh and notify record what they are told."""

import json
import os
import socketserver
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "plugin/usr/local/emhttp/plugins/vm-babysitter"
GUARD = PLUGIN / "scripts/autostart-guard"
HOOK = PLUGIN / "event/libvirt_started"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

_VIRSH = """#!/bin/bash
printf '%s\\n' "$*" >>"$STAGE/virsh.log"
verb=$3 vm=$STAGE/vms/$4
[[ -e $vm.$verb.do ]] && { . "$vm.$verb.do"; }
if [[ $verb == list ]]; then
  [[ -e $STAGE/unlisted ]] && exit 1
  for vm in "$STAGE"/vms/*; do [[ $vm == *.do ]] || printf '%s\\n' "${vm##*/}"; done
  exit 0
fi
[[ -e $vm ]] || { printf "error: failed to get domain '%s'\\n" "$4" >&2; exit 1; }
case $verb in
  domstate) cat "$vm" ;;
  start)
    [[ $(<"$vm") == running ]] && { echo 'error: Domain is already active' >&2; exit 1; }
    echo running >"$vm"
    ;;
esac
"""
_NOTIFY = """#!/bin/bash
printf '%s\\0' "$@" >>"$STAGE/notify.log"
printf '\\n' >>"$STAGE/notify.log"
"""


@dataclass(frozen=True)
class Told:
    """One call of Unraid's notify."""

    severity: str
    subject: str
    text: str
    more: str
    arguments: tuple[str, ...]


class AutostartHost:
    """All places of a host below ``root``. A second lasts five milliseconds there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "run/vm-babysitter"
        self.socket = self.runtime / "api/api.socket"
        self.config = root / "boot/config/plugins/vm-babysitter"
        self.list = self.config / "autostart.tsv"
        self.pid_file = root / "var/run/libvirt/libvirtd.pid"
        self.autostarted = root / "var/run/libvirt/qemu/autostarted"
        self._bin = root / "bin"
        for folder in (
            self.config,
            self.autostarted.parent,
            self._bin,
            root / "vms",
            root / "run",
        ):
            folder.mkdir(parents=True)
        self.libvirtd_starts(1_764_000_000)
        self._program(self._bin / "virsh", _VIRSH)
        self._program(root / "usr/local/emhttp/webGui/scripts/notify", _NOTIFY)

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def libvirtd_starts(self, at: int) -> None:
        """Have libvirtd started at this moment (seconds since 1970)."""
        self.pid_file.write_text("1\n")
        os.utime(self.pid_file, (at, at))

    @property
    def run_id(self) -> str:
        """What names this start of the VM service."""
        return f"{BOOT}-{int(self.pid_file.stat().st_mtime)}"

    @property
    def folder(self) -> Path:
        """Where the markers of this run are."""
        return self.runtime / "autostart" / self.run_id

    def vm(self, uuid: str, state: str = "shut off", **on: str) -> str:
        """Have a VM. ``on``: what a shell does first when virsh is called with such a verb."""
        (self.root / "vms" / uuid).write_text(state + "\n")
        for verb, script in on.items():
            (self.root / "vms" / f"{uuid}.{verb}.do").write_text(script)
        return uuid

    def write_list(self, *entries: tuple[str, int, str]) -> None:
        """Write the copy of the list as the daemon does."""
        lines = ["# vm-babysitter autostart 1", *(f"{u}\t{d}\t{n}" for u, d, n in entries)]
        self.list.write_text("\n".join(lines) + "\n")

    def mark(self, uuid: str, state: str) -> None:
        """Leave a marker as the daemon does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / uuid).write_text(state)

    def markers(self) -> dict[str, str]:
        """Return what has become of each VM, by UUID."""
        return {p.name: p.read_text().strip() for p in self.folder.iterdir() if "-" in p.name}

    def environment(self, **changed: str) -> dict[str, str]:
        """Return what the guard finds in its environment."""
        return {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "STAGE": str(self.root),
            "VMB_ROOT": str(self.root),
            "VMB_SECOND": "5",
            **changed,
        }

    def run(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run the guard to its end."""
        return subprocess.run(
            [GUARD, *arguments],
            env=self.environment(**changed),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def begin(self, **changed: str) -> subprocess.Popen[bytes]:
        """Start the guard as the hook does: as the leader of a session."""
        return subprocess.Popen([GUARD], env=self.environment(**changed), start_new_session=True)

    def calls(self) -> list[tuple[str, str]]:
        """Return what virsh was asked: verb and UUID."""
        log = self.root / "virsh.log"
        lines = log.read_text().splitlines() if log.exists() else []
        words = [line.split(" ") for line in lines]
        assert all(each[:2] == ["-c", "qemu:///system"] for each in words)
        return [(each[2], each[3]) for each in words]

    def started(self) -> list[str]:
        """Return the UUIDs of the VMs that virsh was told to start, in order."""
        return [uuid for verb, uuid in self.calls() if verb == "start"]

    def told(self) -> list[Told]:
        """Return the notifications."""
        log = self.root / "notify.log"
        found = []
        for line in log.read_bytes().split(b"\0\n") if log.exists() else []:
            if line:
                words = tuple(line.decode().split("\0"))
                given = dict(zip(words[::2], words[1::2], strict=True))
                found.append(Told(given["-i"], given["-s"], given["-d"], given["-m"], words))
        return found


class FakeDaemon:
    """Answers on the daemon's socket, until it is closed."""

    def __init__(
        self, socket: Path, answer: Callable[[Mapping[str, object]], tuple[int, object]]
    ) -> None:
        """``answer`` makes status and body of what was asked."""
        self.asked: list[Mapping[str, object]] = []
        self.paths: list[str] = []
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                daemon.paths.append(self.path)
                daemon.asked.append(json.loads(body))
                status, document = answer(daemon.asked[-1])
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

            def address_string(self) -> str:
                return "local"

        self._server = socketserver.ThreadingUnixStreamServer(str(socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Be gone; what is left of it is a socket at which nobody listens."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def states(*words: str, then: str) -> Callable[[Mapping[str, object]], tuple[int, object]]:
    """Answer with these states, one after the other, and with the last one for ever."""
    left: Sequence[str] = list(words)

    def answer(asked: Mapping[str, object]) -> tuple[int, object]:
        nonlocal left
        state, left = (left[0], left[1:]) if left else (then, left)
        return 202, {"run": asked["run"], "state": state}

    return answer
