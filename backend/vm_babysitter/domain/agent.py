"""What comes of asking a guest agent for something."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What the agent answered when it was to freeze or thaw the guest's file systems."""

    count: int = 0
    """How many file systems it froze or thawed."""
    refusal: str = ""
    """Why it did not, in a user's words; empty if it did."""
    unknown: bool = False
    """Whether the refusal is no answer of the agent's: it may have done it, or do it yet."""
