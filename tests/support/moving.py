"""A VM that moves, while it runs, from one libvirt of the tests' own to another."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.guest import wait_until
from tests.support.libvirt_host import LibvirtRefused, Worker
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB
from tests.support.world import World

LEAVES_NO_DEFINITION = 16
COPIES_DISKS = 64
_SLOW = 1
"""MiB a second: what ``movable`` makes of memory lasts until the move is told to hurry."""
_SECONDS = 60


def movable(xml: str, folder: Path) -> str:
    """Return a definition of a test VM whose memory is full of data, which takes long to send."""
    data = folder / "memory"
    data.write_bytes(os.urandom(20 * MIB))
    loader = f"loader,file={data},addr={4 * MIB},force-raw=on"
    values = ("-device", loader)
    arguments = "".join(f"<qemu:arg value='{value}'/>" for value in values)
    return xml.replace("</qemu:commandline>", f"{arguments}</qemu:commandline>")


@dataclass
class Move:
    """A VM's way from one host to another."""

    world: World
    here: PrivateLibvirtd
    there: PrivateLibvirtd
    _problems: list[LibvirtRefused] = field(default_factory=list)
    _thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why the VM has stayed where it was; empty if it has not."""
        return "; ".join(map(str, self._problems))

    def begin(self, options: Mapping[str, object]) -> None:
        """Let it begin, and wait until memory is being sent."""
        self._thread = threading.Thread(target=self._run, args=[options])
        self._thread.start()
        name = self.world.vm.name
        wait_until(lambda: bool(self._problems or self.here.call("is_migrating", name)))
        assert not self._problems, self.problem

    def end(self) -> None:
        """Let it come to its end; where the VM arrives, its world goes on there."""
        assert self._thread is not None
        with suppress(LibvirtRefused):  # it is over
            self.here.call("hurry_migration", self.world.vm.name)
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()
        if not self.problem:
            self.world.move_to(self.there)

    def _run(self, options: Mapping[str, object]) -> None:
        name, place = self.world.vm.name, str(self.there.root / "move")
        with Worker(self.here.uri, self.here.root / "moving.log") as worker:
            try:
                worker.call("migrate", name, self.there.uri, place, options)
            except LibvirtRefused as error:
                self._problems.append(error)


@contextmanager
def moving(
    world: World,
    there: PrivateLibvirtd,
    *,
    texts: Mapping[str, str] | None = None,
    flags: int = LEAVES_NO_DEFINITION,
    speed: int = _SLOW,
) -> Iterator[Move]:
    """The VM is on its way to another host; it arrives after the block, if nothing is wrong.

    Args:
        world: that of the VM, which goes on where the VM is.
        there: the other host, which sees the same folders.
        texts: what is written otherwise in its definition there.
        flags: how it moves.
        speed: MiB a second, before it is told to hurry.
    """
    move = Move(world, world.host, there)
    socket, new_socket = (world.vm.socket_on(host) for host in (world.host, there))
    new_socket.parent.mkdir(exist_ok=True)
    changes = {str(socket): str(new_socket), **(texts or {})}
    move.begin({"texts": changes, "flags": flags, "speed": speed})
    try:
        yield move
    finally:
        move.end()
