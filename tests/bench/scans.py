"""Increments of a raw disk, which is compared as a whole, and what one would do instead."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tests.bench.chains import Chains
from tests.bench.play import Job, Tool
from tests.bench.results import OURS, Run
from tests.bench.stage import BLOCK, GIB, Stage, remove

NOTES = (
    "A raw disk of 4 GiB (at full size) with 2 GiB of random data. nbdcopy only reads, from an "
    "open job. cp and virtnbdbackup, which has no increments of raw disks, copy everything again. "
    "'From its moment on' is our backup without what is done before the job begins, by its own "
    "account. The blocks that changed are of 64 KiB, scattered."
)
_PER_CENT = 100


class Scans:
    """The jobs, on a VM of their own."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        settings = stage.settings
        size = settings.size(4 * GIB)
        self._blocks = size // BLOCK // _PER_CENT
        self._vm = stage.vm("scan", size, settings.size(2 * GIB), format="raw")
        self._chains = Chains(stage, self._vm, "scan")

    def jobs(self) -> Sequence[Job]:
        """Return the jobs."""
        copy, nothing = self._stage.folder / "scan.raw", self._stage.folder / "nothing"
        chains, vm = self._chains, self._vm
        ours = Tool(OURS, chains.backup, check=self._check)
        reading = Tool(f"{OURS}, from its moment on", self._reading)

        def read() -> Run:
            with self._stage.pull(vm) as uri:
                return self._stage.run(["nbdcopy", uri, "null:"], nothing)

        def copied() -> Run:
            return self._stage.run(["cp", "--sparse=always", vm.paths["vda"], copy], copy)

        others = (
            Tool("nbdcopy to null:", read),
            Tool(
                "cp --sparse=always of the image",
                copied,
                lambda: remove(copy),
                lambda: self._stage.compare(vm, copy, "raw"),
            ),
            Tool(
                "virtnbdbackup, a new full",
                lambda: chains.peer_backup("copy", "--raw"),
                chains.peer.clear,
            ),
        )
        return (
            Job("scan, unchanged", (ours, reading, *others), self._prepare),
            Job("scan, 1 % changed", (ours, *others), self._change, self._blocks * BLOCK),
        )

    def _prepare(self, number: int) -> None:
        self._vm.flush("vda")
        if number == 0:
            self._chains.clear_ours()
            self._chains.backup("--full")

    def _change(self, _: int) -> None:
        self._stage.scatter(self._vm, self._blocks)
        self._vm.flush("vda")

    def _reading(self) -> Run:
        done = self._chains.backup()
        point = json.loads((self._newest() / "point.json").read_text())["body"]
        taken, finished = (datetime.fromisoformat(point[name]) for name in ("taken", "finished"))
        return Run((finished - taken).total_seconds(), written_bytes=done.written_bytes)

    def _check(self) -> str:
        return self._stage.compare(self._vm, self._newest() / "vda.qcow2")

    def _newest(self) -> Path:
        return self._chains.newest.parent
