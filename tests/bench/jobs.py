"""The jobs that are measured, and the tools that compete at each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.chains import Chains
from tests.bench.off import NOTES as _OFF
from tests.bench.off import Off
from tests.bench.play import Group, Job, Tool
from tests.bench.results import OURS, Run
from tests.bench.scans import NOTES as _SCAN
from tests.bench.scans import Scans
from tests.bench.stage import BLOCK, GIB, Stage, remove
from tests.support.qemu_img import named
from tests.support.vm import MIB, TestVm

BACKUP, RESTORE = "virtnbdbackup", "virtnbdrestore"
_SCATTERED = 8192
_SIZES = (1, 10, 100)


_FULL = (
    "nbdcopy and convert are given an open job, and write the data only. push begins a job, but "
    "the work is QEMU's own, whose processor time and memory are counted for no tool. What "
    "virtnbdbackup writes is judged by restoring it, below."
)
_COMPRESSED = "The data are random: nothing shrinks."
_INCREMENT = (
    "So many scattered blocks of 64 KiB changed: {blocks}. nbdcopy cannot make increments: as an "
    "upper reference it copies a disk that is full of as many random bytes."
)
_RESTORE = "A full and one increment, as in the job before."
_VERIFY = (
    "virtnbdbackup 1.9 cannot verify. As a reference qemu-img compares the newest point with the "
    "disk itself: that reads both."
)
_SIZE = "Scattered in blocks of 64 KiB. Written is all that the increment adds, metadata included."
_MEMORY = (
    "A disk of 4 TiB (at full size) with a few MiB of data. For the full of a disk with much data "
    "see the table of full backups."
)


class Jobs:
    """All jobs, on one VM; a stage is used up by them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        settings = stage.settings
        self._blocks = settings.count(_SCATTERED)
        self._vm = stage.vm("bench", settings.size(4 * GIB), settings.size(2 * GIB))
        self._chains = Chains(stage, self._vm)

    def groups(self) -> Sequence[Group]:
        """Return all that there is to do, in an order in which each finds what it needs."""
        return (
            Group("full", _FULL, lambda: [self._full()]),
            Group("full-compressed", _COMPRESSED, lambda: [self._compressed()]),
            Group("increment", _INCREMENT.format(blocks=self._blocks), lambda: [self._increment()]),
            Group("restore", _RESTORE, lambda: [self._restore()]),
            Group("verify", _VERIFY, lambda: [self._verify()]),
            Group("increment-size", _SIZE, lambda: [self._increment_of(mib) for mib in _SIZES]),
            Group("scan", _SCAN, lambda: Scans(self._stage).jobs()),
            Group("off", _OFF, lambda: [Off(self._stage, self._blocks).job()]),
            Group("memory", _MEMORY, self._memory, single=True),
        )

    # -- backups --------------------------------------------------------------------------

    def _full(self) -> Job:
        chains, vm = self._chains, self._vm
        raw, qcow2 = self._output("full.raw"), self._output("full.qcow2")
        return Job(
            "full",
            (
                Tool(
                    OURS,
                    lambda: chains.backup("--full"),
                    chains.clear_ours,
                    lambda: self._compare(chains.newest),
                ),
                Tool(BACKUP, lambda: chains.peer_backup("full"), chains.peer.clear),
                self._writer("nbdcopy to raw", raw, "raw", _nbdcopy),
                self._writer("qemu-img convert to qcow2", qcow2, "qcow2", _convert()),
                Tool(
                    "libvirt push to qcow2",
                    lambda: self._stage.push(vm, qcow2),
                    lambda: remove(qcow2),
                    lambda: self._compare(qcow2),
                ),
                Tool(
                    "cp --sparse=always of the image",
                    lambda: self._stage.run(
                        ["cp", "--sparse=always", vm.paths["vda"], qcow2], qcow2
                    ),
                    lambda: remove(qcow2),
                    lambda: self._compare(qcow2),
                ),
            ),
            lambda _: vm.flush("vda"),
        )

    def _compressed(self) -> Job:
        chains, qcow2 = self._chains, self._output("compressed.qcow2")
        zstd = _convert("-c", "-o", "compression_type=zstd")
        ours = Tool(
            OURS,
            lambda: chains.backup("--full", "--compress"),
            chains.clear_ours,
            lambda: self._compare(chains.newest),
        )
        return Job(
            "full-compressed",
            (
                ours,
                Tool(f"{BACKUP} -z", lambda: chains.peer_backup("full", "-z"), chains.peer.clear),
                self._writer("qemu-img convert -c, zstd", qcow2, "qcow2", zstd),
            ),
        )

    def _increment(self) -> Job:
        chains, raw = self._chains, self._output("reference.raw")
        size = self._blocks * BLOCK
        reference = self._stage.vm("reference", size, size, extents=1)

        def prepare(number: int) -> None:
            if number == 0:
                chains.begin(1)
            self._stage.scatter(self._vm, self._blocks)

        return Job(
            "increment",
            (
                *self._incremental(),
                self._writer("nbdcopy of as many bytes", raw, "raw", _nbdcopy, reference),
            ),
            prepare,
        )

    def _increment_of(self, mib: int) -> Job:
        def prepare(_: int) -> None:
            if not self._has_chains():
                self._chains.begin(1)
            self._stage.scatter(self._vm, self._stage.settings.count(mib * MIB // BLOCK))

        return Job(f"increment-{mib}-mib", self._incremental(), prepare)

    def _incremental(self) -> Sequence[Tool]:
        chains = self._chains
        return (
            Tool(OURS, chains.backup, check=lambda: self._compare(chains.newest)),
            Tool(BACKUP, lambda: chains.peer_backup("inc")),
        )

    # -- readers --------------------------------------------------------------------------

    def _restore(self) -> Job:
        chains = self._chains
        target = self._output("restored")
        raw, qcow2 = self._output("restored.raw"), self._output("restored.qcow2")

        def clear() -> None:
            for path in (target, raw, qcow2):
                remove(path)
            chains.warm()

        def tool(name: str, run: Callable[[], Run], path: Path, format: str = "qcow2") -> Tool:
            return Tool(name, run, clear, lambda: self._compare(path, format))

        return Job(
            "restore",
            (
                tool(OURS, lambda: chains.restore(target), target / "vda.qcow2"),
                tool(
                    f"{OURS} raw",
                    lambda: chains.restore(target, "--format", "raw"),
                    target / "vda.raw",
                    "raw",
                ),
                tool(RESTORE, lambda: chains.peer_restore(target), target / "vda.qcow2"),
                tool(
                    "qemu-img convert of our chain to qcow2",
                    lambda: self._stage.run(
                        ["qemu-img", "convert", "-O", "qcow2", named(chains.newest), qcow2], qcow2
                    ),
                    qcow2,
                ),
                tool(
                    "nbdcopy of our chain to raw",
                    lambda: self._stage.run(_nbdcopy_image(chains.newest, raw), raw),
                    raw,
                    "raw",
                ),
            ),
            lambda number: None if number else chains.begin(self._blocks),
        )

    def _verify(self) -> Job:
        chains = self._chains
        image = named(self._vm.paths["vda"])
        nowhere = self._output("nothing")
        compare = ("qemu-img", "compare", "-U", image)
        return Job(
            "verify",
            (
                Tool(OURS, chains.verify, chains.warm),
                Tool(
                    "qemu-img compare with the disk",
                    lambda: self._stage.run([*compare, named(chains.newest)], nowhere),
                    chains.warm,
                ),
            ),
            lambda _: None if self._has_chains() else chains.begin(self._blocks),
        )

    # -- memory ---------------------------------------------------------------------------

    def _memory(self) -> Sequence[Job]:
        size = self._stage.settings.size(4096 * GIB)
        vm = self._stage.vm("large", size, 8 * MIB, extents=16)
        chains, target = Chains(self._stage, vm, "large"), self._output("large")

        def prepare(_: int) -> None:
            self._stage.scatter(vm, 16)

        return (
            Job("memory-full", (Tool(OURS, lambda: chains.backup("--full")),)),
            Job("memory-increment", (Tool(OURS, chains.backup),), prepare),
            Job("memory-verify", (Tool(OURS, chains.verify),)),
            Job(
                "memory-restore",
                (
                    Tool(
                        OURS,
                        lambda: chains.restore(target),
                        lambda: remove(target),
                        lambda: self._stage.compare(vm, target / "vda.qcow2"),
                    ),
                ),
            ),
        )

    # -- helpers --------------------------------------------------------------------------

    def _writer(
        self,
        name: str,
        output: Path,
        format: str,
        command: Callable[[str, Path], Sequence[str | Path]],
        vm: TestVm | None = None,
    ) -> Tool:
        """A tool that reads the export of a job that is not its own."""
        source = vm or self._vm

        def run() -> Run:
            with self._stage.pull(source) as uri:
                return self._stage.run(command(uri, output), output)

        def check() -> str:
            return self._stage.compare(source, output, format)

        return Tool(name, run, lambda: remove(output), check)

    def _output(self, name: str) -> Path:
        return self._stage.folder / name

    def _compare(self, image: Path, format: str = "qcow2") -> str:
        return self._stage.compare(self._vm, image, format)

    def _has_chains(self) -> bool:
        return self._chains.peer.backups.is_dir() and any(self._chains.store.iterdir())


def _nbdcopy(uri: str, output: Path) -> Sequence[str | Path]:
    return "nbdcopy", uri, output


def _nbdcopy_image(image: Path, output: Path) -> Sequence[str | Path]:
    return "nbdcopy", "--", "[", "qemu-nbd", "-r", named(image), "]", output


def _convert(*options: str) -> Callable[[str, Path], Sequence[str | Path]]:
    def command(uri: str, output: Path) -> Sequence[str | Path]:
        return "qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, uri, output

    return command
