"""What the parts of the chaos ring tell each other."""

from dataclasses import dataclass


class Skip(Exception):
    """An action does not apply to things as they are."""


@dataclass
class Broken(AssertionError):
    """A promise was broken."""

    promise: str
    """Which: one word or two, the same for failures of the same kind."""
    evidence: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.evidence}"
