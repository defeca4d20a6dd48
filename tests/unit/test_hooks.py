"""The user's commands around a backup."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from tests.support.fakes.observer import RecordingObserver
from vm_babysitter.domain.errors import BabysitterError, Busy, Cancelled, CommandFailed
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.hooks import Command, Commands, Hooks

VM = {"VMB_VM": 'My "VM" & co'}


class Runner:
    """Remembers what was run; what is named in ``failing`` fails. ``ports.RunCommand``."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[dict[str, str]] = []

    def __call__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        seconds: float,
        check: Callable[[], None],
    ) -> None:
        check()
        self.ran.append(dict(environment))
        if argv[0] in self.failing:
            raise CommandFailed(argv[0], 1, "no such database")


def hooks(
    run: Runner,
    *,
    stop: bool,
    cancel: Cancel | None = None,
    observer: RecordingObserver | None = None,
) -> Hooks:
    before, after = (Command((name,), 10.0, stop) for name in ("/b", "/a"))
    commands = Commands(before, after)
    return Hooks(run, commands, observer or RecordingObserver(), cancel or Cancel())


def made() -> Mapping[str, str]:
    return {"VMB_POINT": "x/000001"}


def test_both_run_and_are_told_what_of() -> None:
    run = Runner()
    assert hooks(run, stop=True).around(VM, made) == ()
    assert run.ran == [
        {**VM, "VMB_WHEN": "before"},
        {**VM, "VMB_WHEN": "after", "VMB_RESULT": "ok", "VMB_POINT": "x/000001"},
    ]


def test_none_is_asked_for() -> None:
    run = Runner()
    assert Hooks(run, Commands(), RecordingObserver(), Cancel()).around(VM, made) == ()
    assert run.ran == []


def test_failures_that_are_warnings() -> None:
    failed = hooks(Runner("/a", "/b"), stop=False).around(VM, made)
    assert [text.split(" failed")[0] for text in failed] == [
        "The command before the backup",
        "The command after the backup",
    ]
    assert "no such database" in failed[0]


def test_one_before_that_fails_stops_the_backup_and_the_one_after_still_runs() -> None:
    run, began = Runner("/b"), []
    with pytest.raises(CommandFailed):
        hooks(run, stop=True).around(VM, lambda: began.append(1) or {})  # type: ignore[func-returns-value]
    assert not began
    assert [each.get("VMB_RESULT") for each in run.ran] == [None, "failed"]


@pytest.mark.parametrize(
    ("error", "word"),
    [(Busy("VM", "it is"), "failed"), (Cancelled(), "cancelled"), (OSError("gone"), "failed")],
)
def test_a_backup_that_fails_is_told_to_the_one_after(error: Exception, word: str) -> None:
    def fails() -> Mapping[str, str]:
        raise error

    run = Runner("/a")
    with pytest.raises(type(error)):
        hooks(run, stop=True).around(VM, fails)
    assert run.ran[1]["VMB_RESULT"] == word
    assert run.ran[1]["VMB_ERROR"]


def test_cancelled_before_it_begins_nothing_but_the_one_after_runs() -> None:
    cancel, run = Cancel(), Runner()
    cancel.request()
    with pytest.raises(BabysitterError):
        hooks(run, stop=False, cancel=cancel).around(VM, made)
    assert [each["VMB_WHEN"] for each in run.ran] == ["after"]


def test_warnings_of_a_backup_that_fails_are_in_its_log() -> None:
    def fails() -> Mapping[str, str]:
        raise Busy("VM", "it is")

    observer = RecordingObserver()
    with pytest.raises(Busy):
        hooks(Runner("/b"), stop=False, observer=observer).around(VM, fails)
    (note,) = observer.notes
    assert note.startswith("The command before the backup failed: ")
