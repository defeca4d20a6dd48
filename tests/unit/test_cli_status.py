"""`status` of a daemon: it fits the screen, and what needs a person comes first."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from vm_babysitter.cli.render_status import schedules_text, status_exit, status_text
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import Exit
from vm_babysitter.domain.job import JobKind, JobState, Origin
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.app import Place
from vm_babysitter.views import (
    JobView,
    NextRunView,
    ScheduleView,
    StatusView,
    TodoView,
    VmStatusView,
)

AT = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
SUGGEST = Suggest(Place("qemu:///system", None), standalone=False, socket=Path("/k"))
JOB = JobView(
    1,
    JobKind.BACKUP,
    "web",
    "u",
    {},
    Origin.USER,
    "",
    1,
    JobState.RUNNING,
    "",
    AT,
    None,
    AT,
    None,
    None,
    "",
    "",
    "",
    "",
    "copy vda",
    0,
    0,
)
FINE = StatusView(True, "All is well.", (), (), (), (), ())


def a_vm(name: str, health: Health = Health.GOOD) -> VmStatusView:
    return VmStatusView(
        name, name, PowerState.RUNNING, True, "", health, f"{health}, 3 h old", "c/1", AT, None
    )


def told(view: StatusView, height: int | None = None) -> list[str]:
    return click.unstyle(status_text(view, SUGGEST, height)).splitlines()


def test_where_nothing_is_to_be_told_little_is() -> None:
    assert told(FINE) == ["All is well.", "Next:   nothing is scheduled"]
    assert status_exit(FINE) is Exit.OK


@pytest.mark.parametrize("height", [24, 40])
def test_a_large_house_fits_one_screen_with_what_is_wrong_first(height: int) -> None:
    vms = [a_vm(f"vm{n:02}") for n in range(49)]
    vms.append(a_vm("troubled", Health.REPAIRABLE))
    todo = tuple(TodoView(f"{n} is wrong.", "Mend it.") for n in range(20))
    jobs = tuple(replace(JOB, id=n) for n in range(12))
    runs = tuple(NextRunView(f"s{n}", "backup", AT) for n in range(9))
    view = StatusView(False, "Not well.", todo, jobs, jobs, runs, tuple(vms))
    lines = told(view, height)
    assert len(lines) < height
    assert lines[0] == "Not well."
    assert "`vm-babysitter --socket /k status | less` shows all" in "\n".join(lines)
    rows = lines[lines.index("") + 2 :]
    assert rows[0].startswith("troubled ")
    assert rows[-1] == f"and {50 - len(rows) + 1} more VMs"
    assert len(told(view)) > 50 + 40, "nobody sees where a pipe ends"


def test_what_there_is_to_do_is_not_said_twice() -> None:
    view = replace(FINE, fine=False, sentence="It is off.", todo=(TodoView("It is off.", "Go."),))
    assert told(view)[:3] == ["It is off.", "To do:", "      -> Go."]


def test_vms_of_one_name_are_told_apart() -> None:
    vms = (a_vm("a"), replace(a_vm("b"), uuid="b1"), replace(a_vm("b"), uuid="b2", state=None))
    rows = told(replace(FINE, vms=vms))[-3:]
    assert [row.split("  ")[0] for row in rows] == ["a", "b (b1)", "b (b2)"]


def test_a_vm_that_is_left_out_or_gone_says_so() -> None:
    out = replace(a_vm("b"), backed_up=False, why_not="it is ignored", state=None)
    *_, good, left = told(replace(FINE, vms=(a_vm("a"), out)))
    assert good.split()[:2] == ["a", "running"]
    assert " gone " in left
    assert left.endswith("not backed up: it is ignored")


@pytest.mark.parametrize(
    ("health", "backed_up", "code"),
    [
        (Health.LOST, True, Exit.INTEGRITY),
        (Health.LOST, False, Exit.WARNINGS),
        (Health.REPAIRABLE, True, Exit.WARNINGS),
    ],
)
def test_it_ends_by_the_worst(health: Health, backed_up: bool, code: Exit) -> None:
    vm = replace(a_vm("a", health), backed_up=backed_up)
    assert status_exit(replace(FINE, fine=False, vms=(vm,))) is code


def test_what_is_odd_about_a_schedule_is_told() -> None:
    one = ScheduleView(
        "night", "verify", "* 2 * * *", "often", ("a", "b"), True, AT, None, ("Odd.",)
    )
    off = replace(one, name="day", enabled=False, next=None, warnings=())
    lines = click.unstyle(schedules_text([one, off])).splitlines()
    assert lines[1].split()[:5] == ["night", "verify", "often", "a,", "b"]
    assert lines[2].endswith("off")
    assert lines[3:] == ["night: Odd."]
    assert schedules_text([]) == "Nothing is done by schedule."
