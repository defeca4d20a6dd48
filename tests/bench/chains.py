"""Backups of one VM by us and by virtnbdbackup, side by side."""

import sys
from pathlib import Path

from tests.bench.results import Run
from tests.bench.stage import Stage, remove
from tests.support.incumbent import Incumbent
from tests.support.vm import TestVm
from tests.support.world import environment


class Chains:
    """Our store and the other's folder, and the commands that fill and read them."""

    def __init__(self, stage: Stage, vm: TestVm, name: str = "chains") -> None:
        self.stage = stage
        self.vm = vm
        self.store = stage.folder / f"{name} store"
        # Its sockets lie beside its backups.
        self.peer = Incumbent(stage.host, vm.name, stage.host.root / name)
        self.peer.backups = stage.folder / f"{name} peer"
        self.clear_ours()

    @property
    def newest(self) -> Path:
        """The image of our newest point."""
        return max(self.store.glob("*/*/0*/vda.qcow2"), key=lambda path: path.parent.name)

    def begin(self, blocks: int) -> None:
        """Begin anew: a full, and one increment with so many blocks."""
        self.clear_ours()
        self.peer.clear()
        self.backup("--full")
        self.peer_backup("full")
        self.stage.scatter(self.vm, blocks)
        self.backup()
        self.peer_backup("inc")

    def warm(self) -> None:
        """Have all backups in the page cache; ours takes care that what it has read is not."""
        for path in (*self.store.rglob("*"), *self.peer.backups.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(1 << 20):
                        pass

    def clear_ours(self) -> None:
        """Remove all points of ours."""
        remove(self.store)
        self.store.mkdir()

    def backup(self, *options: str) -> Run:
        """Make a point."""
        return self._ours("backup", self.vm.name, *options, output=self.store)

    def verify(self) -> Run:
        """Verify the newest point, which reads all that it holds."""
        return self._ours("verify", self.vm.name, "latest", output=self.store)

    def restore(self, target: Path, *options: str) -> Run:
        """Restore the newest point."""
        to = ("--to", str(target))
        return self._ours("restore", self.vm.name, "latest", *to, *options, output=target)

    def peer_backup(self, level: str, *options: str) -> Run:
        """Have virtnbdbackup make a backup."""
        command = self.peer.backup_command(level, *options)
        return self.stage.run(command, self.peer.backups, self.peer.environment)

    def peer_restore(self, target: Path) -> Run:
        """Have virtnbdrestore restore its newest point."""
        command = self.peer.restore_command(target)
        return self.stage.run(command, target, self.peer.environment)

    def _ours(self, *arguments: str, output: Path) -> Run:
        program = [sys.executable, "-m", "vm_babysitter", "--standalone", "--allow-ram-store"]
        place = ["--uri", self.stage.host.uri, "--store", str(self.store)]
        return self.stage.run([*program, *place, *arguments], output, environment())
