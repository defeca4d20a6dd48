"""What every error of ours has: a code, fields, words and an exit code."""

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes of the command line. They are promises."""

    OK = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    NOT_FOUND = 10
    BUSY = 11
    INTEGRITY = 12
    UNREACHABLE = 20
    CANCELLED = 130


class BabysitterError(Exception):
    """Base of all errors that we raise on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[Exit] = Exit.FAILED
    template: ClassVar[str] = ""
    hint_template: ClassVar[str] = ""
    transient: ClassVar[bool] = False
    """Whether the same call may well succeed later."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields of this error by name."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    @property
    def message(self) -> str:
        """One sentence: what is wrong."""
        return self.template.format(**self.fields)

    @property
    def hint(self) -> str:
        """One sentence: what to do about it; empty where nothing is to be said."""
        return self.hint_template.format(**self.fields)

    @property
    def lines(self) -> str:
        """Both, on lines of their own: neither is cut for the other."""
        return f"{self.message}\n{self.hint}".strip()

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
