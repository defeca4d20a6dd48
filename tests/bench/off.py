"""Increments of a VM that is off."""

from tests.bench.chains import Chains
from tests.bench.play import Job, Tool
from tests.bench.results import OURS
from tests.bench.stage import BLOCK, GIB, Stage, remove
from tests.support.qemu_img import named

NOTES = (
    "As many scattered blocks of 64 KiB as in the table of increments changed; then the VM was "
    "switched off. The bitmap is that of a backup made just before. virtnbdbackup has no "
    "increments of VMs that are off. qemu-img and nbdcopy read the image as it is."
)


class Off:
    """The job, on a VM of its own."""

    def __init__(self, stage: Stage, blocks: int) -> None:
        self._stage = stage
        self._blocks = blocks
        settings = stage.settings
        self._vm = stage.vm("off", settings.size(4 * GIB), settings.size(2 * GIB))
        self._chains = Chains(stage, self._vm, "off")

    def job(self) -> Job:
        """Return it."""
        chains, stage = self._chains, self._stage
        image, copy = self._vm.paths["vda"], stage.folder / "off.qcow2"
        convert = ("qemu-img", "convert", "-O", "qcow2", named(image), copy)
        null = ("nbdcopy", "--", "[", "qemu-nbd", "-r", named(image), "]", "null:")
        return Job(
            "off",
            (
                Tool(OURS, chains.backup, check=lambda: stage.compare(self._vm, chains.newest)),
                Tool(
                    "virtnbdbackup, a new full",
                    lambda: chains.peer_backup("copy"),
                    chains.peer.clear,
                ),
                Tool(
                    "qemu-img convert to qcow2",
                    lambda: stage.run(convert, copy),
                    lambda: remove(copy),
                    lambda: stage.compare(self._vm, copy),
                ),
                Tool("nbdcopy to null:", lambda: stage.run(null, stage.folder / "nothing")),
            ),
            self._prepare,
            self._blocks * BLOCK,
        )

    def _prepare(self, number: int) -> None:
        if number:
            self._vm.start()
        self._chains.backup()
        self._stage.scatter(self._vm, self._blocks)
        self._vm.stop()
