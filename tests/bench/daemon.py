"""What a daemon costs that has nothing to do, and how fast it is where somebody waits for it.

    python -m tests.bench.daemon [SECONDS]

SECONDS of idling are watched (30). 50 VMs that are off, 2,000 restore points.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.conftest import private_root
from tests.support.daemon import SLOW, DaemonProcess, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, TestVm, vms_on
from tests.support.world import Silent
from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import ChainDocument
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.chain import ChainState
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel

VMS = 50
POINTS = 2000
_REAL = 4
"""Points of a series, each of which is made by a backup."""
_ASKED = 50
_TINY = DiskSpec("vda", size=MIB)
_STATUS = "a status, median (all of 50 VMs)"


def main() -> int:
    idle = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with private_root() as root, closing(PrivateLibvirtd(root)) as host:
        host.start()
        with vms_on(host, root) as make, closing(DaemonProcess(host, root / "d")) as daemon:
            vms = [make(f"vm {number}", [_TINY]) for number in range(VMS)]
            begun = time.monotonic()
            _points(daemon, host, vms)
            print(f"(made {POINTS} points in {time.monotonic() - begun:.0f} s)", flush=True)
            _figures(daemon, make(f"vm {VMS}"), idle)
    return 0


def _points(daemon: DaemonProcess, host: PrivateLibvirtd, vms: list[TestVm]) -> None:
    """Make a series of each VM, which is off, and copies of it until all points are there."""
    place = Place(host.uri, daemon.store, True, daemon.runtime)
    for number in range(_REAL):
        for vm in vms:
            write = f"write -q -P {number + 1} 0 4k"
            image = str(vm.paths["vda"])
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, image], check=True)
            with Standalone(place, Silent(), Cancel()).backup() as backup:
                backup.run(vm.uuid)
    for chain in list(daemon.store.glob("*/*/chain.json")):
        for number in range(1, POINTS // VMS // _REAL):
            _copy(chain.parent, number)


def _copy(chain: Path, number: int) -> None:
    """Make another series, closed and older, of the same files."""
    begun = documents.read(chain / "chain.json", "chain", ChainDocument)
    own = replace(
        begun,
        id=str(uuid.uuid4()),
        created=begun.created - timedelta(days=number),
        state=ChainState.ARCHIVED,
    )
    target = chain.with_name(layout.chain_directory(own.created))
    shutil.copytree(chain, target, ignore=shutil.ignore_patterns("*.json"))
    documents.write(target / "chain.json", "chain", own)
    for manifest in chain.glob("*/point.json"):
        point = replace(documents.read(manifest, "point", Point), chain_id=own.id)
        documents.write(target / manifest.parent.name / manifest.name, "point", point)


def _figures(daemon: DaemonProcess, large: TestVm, idle: float) -> None:
    daemon.write_settings()
    rows = [("from the start to the first answer", f"{daemon.start():.2f} s")]
    begun = time.monotonic()
    until(lambda: all(vm["newest"] for vm in _vms(daemon)[:VMS]))
    rows.append(("to all backups looked at, after that", f"{time.monotonic() - begun:.2f} s"))
    time.sleep(5)
    before = _cpu(daemon)
    time.sleep(idle)
    used = _cpu(daemon) - before
    rows.append((f"processor in {idle:.0f} s of idling", f"{used:.2f} s ({used / idle:.2%})"))
    rows.append(("memory when idle", _memory(daemon)))
    rows.append((_STATUS, f"{_median(daemon, '/status') * 1000:.1f} ms"))
    found = len(daemon.api.get("/points"))
    rows.append((f"all {found} points, median", f"{_median(daemon, '/points') * 1000:.0f} ms"))
    large.start()
    large.write_bytes("vda", 0, os.urandom(8 * MIB))
    number = daemon.api.submit("backup", large.name, limit=SLOW)
    daemon.api.reaches(number)
    rows.append(("stop in the midst of a backup", f"{daemon.terminate():.2f} s"))
    for what, value in rows:
        print(f"| {what} | {value} |")


def _vms(daemon: DaemonProcess) -> list[dict[str, object]]:
    found = daemon.api.get("/status")["vms"]
    return [vm for vm in found if vm["vm"] != f"vm {VMS}"] or [{"newest": None}]


def _median(daemon: DaemonProcess, target: str) -> float:
    taken = []
    for _ in range(_ASKED):
        begun = time.monotonic()
        daemon.api.get(target)
        taken.append(time.monotonic() - begun)
    return sorted(taken)[_ASKED // 2]


def _cpu(daemon: DaemonProcess) -> float:
    """Seconds of processor time that it has used."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(daemon: DaemonProcess) -> str:
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    values = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return f"{int(values['VmRSS'].split()[0]) / 1024:.0f} MiB, {values['Threads']} threads"


if __name__ == "__main__":
    raise SystemExit(main())
