"""Working space that is only names: ``ports.ScratchPlaces``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from tests.support.fakes.faults import Faults, faulty
from vm_babysitter.domain.chain import Attempt
from vm_babysitter.domain.space import Room


class FakeScratchPlaces(Faults):
    """Implements ``ports.ScratchPlaces``; ``files`` are those there are."""

    def __init__(self, files: set[str] | None = None) -> None:
        """``files`` is shared with the FakeHypervisor whose jobs make them."""
        super().__init__()
        self.files: set[str] = set() if files is None else files
        self.unfit = ""
        """What ``probe`` says."""
        self.rooms = [Room(1 << 40, 1 << 41, 1)]
        """What ``room`` says, one after the other; the last one for good."""
        self.grown = 0
        self.held: dict[str, str] = {}
        """Who is at which attempt, by nonce."""
        self.used_by = ""
        """What ``still_used`` says."""

    @faulty
    def scratch_path(self, disk_path: str, nonce: str, target: str) -> str:
        return str(PurePosixPath(disk_path).parent / f".vmb-{nonce}-{target}.scratch")

    @faulty
    def probe(self, path: str) -> str:
        return self.unfit

    @faulty
    def room(self, path: str) -> Room:
        return self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]

    def used(self, path: str) -> int:
        return self.grown

    @faulty
    def socket_path(self, nonce: str) -> str:
        return f"/run/fake/job-{nonce}/nbd.socket"

    @faulty
    def remove(self, path: str, nonce: str) -> None:
        name = PurePosixPath(path).name
        scratch = name.startswith(f".vmb-{nonce}-") and name.endswith(".scratch")
        if nonce and (scratch or path == f"/run/fake/job-{nonce}/nbd.socket"):
            self.files.discard(path)

    @contextmanager
    def hold(self, nonce: str) -> Iterator[None]:
        self.calls.append("hold")
        if "hold" in self.fail:
            raise self.fail["hold"]
        self.held[nonce] = "process 1"
        try:
            yield
        finally:
            del self.held[nonce]

    @faulty
    def holder(self, nonce: str) -> str:
        return self.held.get(nonce, "")

    @faulty
    def remove_abandoned(self) -> None:
        pass  # a name that nobody holds is none here

    @faulty
    def still_used(self, attempt: Attempt) -> str:
        return self.used_by
