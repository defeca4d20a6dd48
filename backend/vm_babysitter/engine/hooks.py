"""The user's own commands before and after a VM's backup."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vm_babysitter.domain.errors import BabysitterError, Cancelled
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Observer, RunCommand

BEFORE, AFTER = "command before", "command after"
"""Steps of a job."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the user's."""

    argv: tuple[str, ...]
    seconds: float
    """It is killed after that."""
    stop: bool
    """Whether a backup is not begun, or counts as failed, if it fails; else that is a warning."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What the user wants to have run around a backup."""

    before: Command | None = None
    after: Command | None = None


class Hooks:
    """Runs them."""

    def __init__(
        self, run: RunCommand, commands: Commands, observer: Observer, cancel: Cancel
    ) -> None:
        self._run = run
        self._commands = commands
        self._observer = observer
        self._cancel = cancel

    def around(
        self, environment: Mapping[str, str], work: Callable[[], Mapping[str, str]]
    ) -> tuple[str, ...]:
        """Run ``work`` between them. Returns what of them failed, in sentences.

        What is after runs whatever became of the one before and of the work, told by
        ``VMB_RESULT``: ``ok`` with what ``work`` returns, ``failed``, ``cancelled``. Only if this
        process is killed it does not.

        Raises:
            CommandFailed, ProgramMissing: one that is to stop it has failed.
            BabysitterError: what ``work`` raises.
        """
        failed: list[str] = []
        try:
            self._one("before", self._commands.before, environment, failed)
            result: Mapping[str, str] = {"VMB_RESULT": "ok", **work()}
        except BaseException as error:
            for text in failed:  # nobody hears of them else
                self._observer.note(text)
            word = "cancelled" if isinstance(error, Cancelled) else "failed"
            result = {"VMB_RESULT": word, "VMB_ERROR": str(error)}
            try:
                self._one("after", self._commands.after, {**environment, **result}, failed)
            except BabysitterError as second:
                self._observer.note(str(second))
            raise
        self._one("after", self._commands.after, {**environment, **result}, failed)
        return tuple(failed)

    def _one(
        self, when: str, command: Command | None, environment: Mapping[str, str], failed: list[str]
    ) -> None:
        if command is None:
            return
        self._observer.step(BEFORE if when == "before" else AFTER)
        # What is after has to run even if the backup was cancelled: it may undo what was before.
        check = self._cancel.check if when == "before" else _go_on
        try:
            self._run(command.argv, {**environment, "VMB_WHEN": when}, command.seconds, check)
        except BabysitterError as error:
            if command.stop or isinstance(error, Cancelled):
                raise
            failed.append(f"The command {when} the backup failed: {error}")


def _go_on() -> None:
    return None
