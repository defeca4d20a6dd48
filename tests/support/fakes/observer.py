"""An observer that remembers: ``ports.Observer``."""

from collections.abc import Callable


class RecordingObserver:
    """Implements ``ports.Observer``.

    ``at["commit"] = action`` runs ``action`` when the step ``commit`` begins: there a test
    looks, changes the world, or raises.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []
        self.amounts: list[tuple[int, int]] = []
        """What ``progress`` was told: done and total."""
        self.at: dict[str, Callable[[], None]] = {}

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.at:
            self.at[name]()

    def progress(self, done: int, total: int) -> None:
        self.amounts.append((done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)
