"""`make bench`: how fast are we, beside the tools that one would use instead?

All of it happens in a temporary folder with a private libvirt. Nothing is judged: it prints
tables, and writes the medians to ``bench.json``.

    VMB_BENCH_ROUNDS   rounds after the warm-up (3)
    VMB_BENCH_SCALE    a fraction of the full sizes, for a quick try (1)
    VMB_BENCH_DIR      where the disks and backups go, and are removed again ($TMPDIR)
    VMB_BENCH_JOBS     names of the tables that are wanted, separated by commas (all)
"""

import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.bench.jobs import BACKUP, Jobs
from tests.bench.measure import CommandFailed
from tests.bench.play import Group, play
from tests.bench.results import OURS, Row, table, to_json
from tests.bench.stage import NoRoom, Settings, is_ram, open_stage
from tests.support.qemu_img import run

_RESULT = Path(__file__).parents[2] / "bench.json"
_METHOD = """\
Medians; tools take turns within a round. Seconds include what a tool needs to start, and end when
all that it wrote is on the disk (fsync, for every tool). What is read is in the page cache, what
is written is new. CPU and memory are those of the tool and all its descendants, never of the VM's
QEMU; memory is the greatest sum of their resident pages, sampled 25 times a second.\
"""


def main() -> int:
    signal.signal(signal.SIGTERM, _end)
    try:
        settings = _settings()
        rows = _bench(settings)
    except (NoRoom, CommandFailed, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    _RESULT.write_text(to_json(rows))
    print(f"\nThe medians are in {_RESULT}.")
    return 1 if any(row.wrong and row.tool.startswith(OURS) for row in rows) else 0


def _settings() -> Settings:
    value = os.environ.get
    folder = Path(value("VMB_BENCH_DIR") or tempfile.gettempdir()).absolute()
    rounds, scale = int(value("VMB_BENCH_ROUNDS") or 3), float(value("VMB_BENCH_SCALE") or 1)
    if rounds < 1 or not 0 < scale <= 1:
        raise ValueError("VMB_BENCH_ROUNDS must be 1 or more, VMB_BENCH_SCALE above 0 up to 1")
    return Settings(rounds, scale, folder)


def _bench(settings: Settings) -> Sequence[Row]:
    rows: list[Row] = []
    with open_stage(settings) as stage:
        print(_headline(settings))
        groups = _wanted(Jobs(stage).groups())
        for group in groups:
            found: list[Row] = []
            for job in group.jobs():
                found += play(job, settings.rounds, single=group.single, say=_say)
            print(f"\n## {group.title}\n\n{table(found)}\n\n{group.notes}", flush=True)
            rows += found
    return rows


def _wanted(groups: Sequence[Group]) -> Sequence[Group]:
    names = os.environ.get("VMB_BENCH_JOBS", "").replace(",", " ").split()
    unknown = set(names) - {group.title for group in groups}
    if unknown:
        raise ValueError(f"VMB_BENCH_JOBS: there is no {', '.join(sorted(unknown))}")
    return [group for group in groups if not names or group.title in names]


def _headline(settings: Settings) -> str:
    qemu = run("qemu-img", "--version").splitlines()[0].removeprefix("qemu-img version ")
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}, QEMU {qemu}"
    machine += f", {BACKUP} {run(BACKUP, '--version').strip()}"
    amount = f"{settings.rounds} round(s) after a warm-up, {settings.scale:g} of the full size"
    if is_ram(settings.folder):
        amount += "; **everything is in RAM**, where syncing costs nothing"
    load = f"load before: {os.getloadavg()[0]:.1f}"
    return f"# Benchmark\n\n{machine}; {amount}; {load}.\n\n{_METHOD}"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _end(*_: int | FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    raise SystemExit(main())
