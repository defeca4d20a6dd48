"""Schedules are begun when they are due, once: after stops, sleep, jumps of the clock, changes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.timer import FakeTimer
from vm_babysitter.domain.errors import StoreFailed
from vm_babysitter.domain.schedule import parse
from vm_babysitter.engine.scheduling import Scheduler, Wanted, begun

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC)


def wanted(name: str = "nightly", line: str = "0 2 * * *", *vms: str) -> Wanted:
    return Wanted(name, parse(line), "backup", vms)


class Notes:
    """Implements ``ports.ServedRuns``; what a journal keeps while the program is not running."""

    def __init__(self) -> None:
        self.runs: dict[str, datetime] = {}
        self.noted: list[tuple[str, datetime]] = []
        self.fails = False

    def last_runs(self) -> Mapping[str, datetime]:
        return dict(self.runs)

    def note_run(self, schedule: str, due: datetime) -> None:
        if self.fails:
            raise StoreFailed("the journal", "the disk is full")
        self.noted.append((schedule, due))
        self.runs[schedule] = due


class House:
    """A machine on which the program is started, stopped, and runs."""

    def __init__(self, now: datetime = NOON, zone: tzinfo = UTC) -> None:
        self.clock = FakeClock(now)
        self.notes = Notes()
        self.zone = zone
        self.begun: list[tuple[str, str]] = []
        """Name and due time of runs, in order."""
        self.fails = False
        self.submitted: list[Wanted] = []
        self.start()

    def start(self) -> None:
        self.timer = FakeTimer(self.clock)
        self.scheduler = Scheduler(self.timer, self.clock, self.notes, self.submit, self.zone)

    def submit(self, schedule: Wanted, due: datetime) -> None:
        if self.fails:
            raise StoreFailed("the queue", "the disk is full")
        assert due <= self.clock.now()
        self.submitted.append(schedule)
        self.begun.append((schedule.name, f"{due.astimezone(self.zone):%m-%dT%H:%M}"))

    def sync(self, *schedules: Wanted) -> None:
        self.scheduler.sync(schedules)
        self.timer.settle()

    def restart(self, after: timedelta, *schedules: Wanted) -> None:
        """Stop the program, let time pass, start it again."""
        self.clock.advance(after.total_seconds())
        self.start()
        self.sync(*schedules)

    def dues(self) -> list[str]:
        return [due for _, due in self.begun]


def test_each_run_is_begun_at_its_time() -> None:
    house = House()
    house.sync(wanted(), wanted("hourly", "@hourly"))
    assert house.scheduler.next_runs() == {
        "nightly": utc("11-25T02:00"),
        "hourly": utc("11-24T13:00"),
    }
    house.timer.pass_time(14.5 * HOUR)
    assert house.dues().count("11-25T02:00") == 2
    assert len(house.begun) == 15
    house.timer.pass_time(DAY)
    assert [due for name, due in house.begun if name == "nightly"] == ["11-25T02:00", "11-26T02:00"]
    assert house.notes.runs["nightly"] == utc("11-26T02:00")
    assert house.timer.failures == []


def test_what_is_submitted_is_what_is_wanted() -> None:
    house = House()
    house.sync(wanted("a", "0 13 * * *", "router", "win 11"))
    house.timer.pass_time(DAY)
    assert house.submitted == [wanted("a", "0 13 * * *", "router", "win 11")]


def test_a_new_schedule_begins_to_count_from_now() -> None:
    house = House()
    house.sync(wanted(line="0 11 * * *"))
    assert house.begun == []
    (since,) = house.notes.runs.values()
    assert timedelta(0) <= since - NOON < timedelta(seconds=1)


def test_a_schedule_that_has_not_run_yet_has_no_last_run() -> None:
    house = House()
    house.sync(wanted())
    assert begun(house.notes.runs) == {}
    house.clock.advance(0.5)
    house.sync(wanted(), wanted("hourly", "@hourly"))
    assert begun(house.notes.runs) == {}
    house.timer.pass_time(HOUR)
    assert begun(house.notes.runs) == {"hourly": utc("11-24T13:00")}
    house.restart(5 * DAY, wanted())
    assert begun(house.notes.runs)["nightly"] == utc("11-29T02:00")
    house.sync(wanted(line="30 2 * * *"))
    assert "nightly" not in begun(house.notes.runs)


# --- missed --------------------------------------------------------------------------------------


def test_missed_runs_are_made_up_for_once() -> None:
    house = House()
    house.sync(wanted())
    house.restart(5 * DAY, wanted())
    assert house.dues() == ["11-29T02:00"]
    house.restart(MINUTE, wanted())
    house.timer.pass_time(DAY)
    assert house.dues() == ["11-29T02:00", "11-30T02:00"]


def test_a_run_missed_before_the_first_ever_is_made_up_for() -> None:
    house = House()
    house.sync(wanted())  # saved at noon; the program is stopped before 2
    house.restart(15 * HOUR, wanted())
    assert house.dues() == ["11-25T02:00"]


def test_nothing_missed_nothing_made_up_for() -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(15 * HOUR)
    house.restart(2 * HOUR, wanted())
    assert house.dues() == ["11-25T02:00"]


def test_each_of_several_schedules_is_made_up_for() -> None:
    house = House()
    both = (wanted(), wanted("hourly", "@hourly"), wanted("yearly", "@yearly"))
    house.sync(*both)
    house.restart(DAY, *both)
    assert sorted(house.begun) == [("hourly", "11-25T12:00"), ("nightly", "11-25T02:00")]


def test_a_machine_that_slept_makes_up_for_it_once() -> None:
    house = House()
    house.sync(wanted("hourly", "@hourly"))
    house.timer.sleep(5.5 * HOUR)
    assert house.dues() == ["11-24T17:00"]
    house.timer.pass_time(HOUR)
    assert house.dues() == ["11-24T17:00", "11-24T18:00"]


# --- the clock is set ----------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [15 * HOUR, 3 * DAY + 3 * HOUR, 400 * DAY])
def test_a_clock_set_forward_makes_up_once(forward: timedelta) -> None:
    house = House()
    house.sync(wanted())
    house.timer.jump(forward)
    assert len(house.begun) == 1
    house.timer.pass_time(DAY)
    assert len(house.begun) == 2


def test_a_clock_set_forward_over_nothing_begins_nothing() -> None:
    house = House()
    house.sync(wanted())
    house.timer.jump(13 * HOUR)
    assert house.begun == []
    house.timer.pass_time(2 * HOUR)
    assert house.dues() == ["11-25T02:00"]


@pytest.mark.parametrize("back", [MINUTE, HOUR, 2.9 * HOUR])
def test_a_clock_set_back_by_a_little_repeats_no_run(back: timedelta) -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(14 * HOUR + MINUTE)
    house.timer.jump(-back)
    house.timer.pass_time(20 * HOUR)
    assert house.dues() == ["11-25T02:00"]
    house.timer.pass_time(8 * HOUR)
    assert house.dues() == ["11-25T02:00", "11-26T02:00"]


def test_nor_does_a_restart_after_it() -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(14 * HOUR + MINUTE)
    house.restart(-HOUR, wanted())
    house.timer.pass_time(20 * HOUR)
    assert house.dues() == ["11-25T02:00"]


@pytest.mark.parametrize("back", [4 * HOUR, 30 * HOUR, 3000 * DAY])
def test_a_clock_set_back_by_much_keeps_no_run_waiting(back: timedelta) -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(14 * HOUR + MINUTE)
    house.timer.jump(-back)
    house.timer.pass_time(DAY + MINUTE)
    assert len(house.begun) == 2


@pytest.mark.parametrize("back", [30 * MINUTE, 2 * HOUR, 5 * HOUR, 700 * DAY])
def test_frequent_runs_go_on_whatever_the_clock_does(back: timedelta) -> None:
    house = House()
    house.sync(wanted("hourly", "@hourly"))
    house.timer.pass_time(3 * HOUR + MINUTE)
    house.timer.jump(-back)
    before = len(house.begun)
    house.timer.pass_time(2 * HOUR)
    assert len(house.begun) - before in {1, 2}


def test_a_start_with_a_dead_clock_battery_repeats_nothing_once_the_time_is_known() -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(15 * HOUR)  # 3 o'clock: the run is through
    off = datetime(2000, 1, 1, 0, 1, tzinfo=UTC) - house.clock.now()
    house.restart(off, wanted())
    house.timer.pass_time(MINUTE)
    house.timer.jump(-off)
    assert house.dues() == ["11-25T02:00"]
    house.timer.pass_time(DAY)
    assert house.dues() == ["11-25T02:00", "11-26T02:00"]


def test_a_start_with_a_clock_that_was_years_ahead() -> None:
    house = House()
    house.sync(wanted())
    house.timer.jump(2000 * DAY)
    assert len(house.begun) == 1
    house.restart(-2000 * DAY, wanted())
    house.timer.pass_time(DAY)
    assert house.dues()[1:] == ["11-25T02:00"]


def test_a_clock_set_back_unnoticed_begins_nothing_too_early() -> None:
    house = House()
    house.sync(wanted())
    [(_, ring)] = list(house.timer._alarms.values())
    house.clock.advance(-5 * 3600)
    ring()
    assert house.begun == []
    house.timer.pass_time(20 * HOUR)
    assert house.dues() == ["11-25T02:00"]


@given(
    st.sampled_from(["0 2 * * *", "@hourly", "30 1,2 * * *", "@weekly"]),
    st.lists(
        st.tuples(
            st.sampled_from(["pass", "pass", "sleep", "jump", "restart"]), st.integers(-90, 90)
        ),
        max_size=12,
    ),
)
def test_whatever_happens_to_the_clock_the_next_run_is_not_far(
    line: str, story: list[tuple[str, int]]
) -> None:
    house = House(zone=BERLIN)
    house.sync(wanted(line=line))
    for what, hours in story:
        amount = hours * HOUR + 7 * MINUTE
        if what == "jump":
            house.timer.jump(amount)
        elif what == "restart":
            house.restart(amount, wanted(line=line))
        elif what == "sleep":
            house.timer.sleep(abs(amount))
        else:
            house.timer.pass_time(abs(amount))
        now = house.clock.now()
        due = house.scheduler.next_runs()["nightly"]
        assert now < due <= following(line, now + 3 * HOUR)
    # No run is begun twice, unless a clock was so wrong that what it said does not count.
    set_back = sum(max(0, -hours) for what, hours in story if what in {"jump", "restart"})
    assert set_back > 2 or all(a != b for a, b in zip(house.begun, house.begun[1:], strict=False))
    assert house.timer.failures == []


def following(line: str, moment: datetime) -> datetime:
    found = parse(line).next_after(moment, BERLIN)
    assert found is not None
    return found


# --- changes -------------------------------------------------------------------------------------


def test_the_same_schedules_again_change_nothing() -> None:
    house = House()
    house.sync(wanted(), wanted("b", "@hourly"))
    alarms, noted = dict(house.timer._alarms), list(house.notes.noted)
    house.sync(wanted("b", "0 * * * *"), wanted())
    assert house.timer._alarms == alarms
    assert house.notes.noted == noted


def test_a_removed_schedule_does_not_run_and_makes_nothing_up_when_it_comes_back() -> None:
    house = House()
    house.sync(wanted(), wanted("b", "0 3 * * *"))
    house.sync(wanted("b", "0 3 * * *"))
    house.timer.pass_time(3 * DAY)
    assert {name for name, _ in house.begun} == {"b"}
    assert list(house.scheduler.next_runs()) == ["b"]
    house.sync(wanted(), wanted("b", "0 3 * * *"))
    assert {name for name, _ in house.begun} == {"b"}
    house.timer.pass_time(DAY)
    assert house.begun.count(("nightly", "11-28T02:00")) == 1


def test_a_renamed_schedule_goes_on_under_its_new_name() -> None:
    house = House()
    house.sync(wanted())
    house.timer.pass_time(DAY)
    house.sync(wanted("every night"))
    house.timer.pass_time(DAY)
    assert house.begun == [("nightly", "11-25T02:00"), ("every night", "11-26T02:00")]


def test_new_times_count_from_now() -> None:
    house = House()
    house.sync(wanted())
    house.sync(wanted(line="0 11 * * *"))
    assert house.begun == []  # 11 o'clock was no time to run when it was 11
    house.sync(wanted(line="0 13 * * *"))
    house.timer.pass_time(2 * HOUR)
    assert house.dues() == ["11-24T13:00"]


def test_new_times_count_from_now_after_a_restart_too() -> None:
    house = House()
    house.sync(wanted())
    house.sync(wanted(line="0 11 * * *"))
    house.restart(MINUTE, wanted(line="0 11 * * *"))
    assert house.begun == []


def test_other_vms_take_nothing_from_a_run_that_is_due() -> None:
    house = House()
    house.sync(wanted("a", "0 2 * * *", "x"))
    house.timer.pass_time(13 * HOUR)
    house.sync(wanted("a", "0 2 * * *", "y"))
    house.timer.pass_time(2 * HOUR)
    assert house.submitted == [wanted("a", "0 2 * * *", "y")]


def test_two_schedules_of_one_name_are_refused() -> None:
    house = House()
    with pytest.raises(ValueError, match="same name"):
        house.sync(wanted(), wanted())
    assert house.scheduler.next_runs() == {}


def test_names_may_be_anything() -> None:
    house = House()
    house.sync(wanted(""), wanted("naïve 猫\n{x}"), wanted("schedule "))
    house.timer.pass_time(DAY)
    assert len(house.begun) == 3


def test_another_zone_moves_what_is_due() -> None:
    house = House()
    house.sync(wanted())
    house.scheduler.use_zone(BERLIN)
    assert house.scheduler.next_runs() == {"nightly": utc("11-25T01:00")}
    alarms = dict(house.timer._alarms)
    house.scheduler.use_zone(BERLIN)
    assert house.timer._alarms == alarms


def test_a_week_around_the_night_in_spring() -> None:
    house = House(datetime(2026, 3, 26, 12, tzinfo=UTC), BERLIN)
    house.sync(wanted(line="30 2 * * *"))
    house.timer.pass_time(4 * DAY)
    expected = ["03-27T02:30", "03-28T02:30", "03-29T03:00", "03-30T02:30"]
    assert house.dues() == expected


# --- failures ------------------------------------------------------------------------------------


def test_a_run_that_could_not_be_begun_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.sync(wanted())
    house.fails = True
    house.timer.pass_time(14 * HOUR + 3 * MINUTE)
    assert house.timer.failures == []
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Schedule 'nightly' cannot begin"
    ] * 4
    assert house.begun == []
    house.fails = False
    house.timer.pass_time(DAY)
    assert house.dues() == ["11-25T02:00", "11-26T02:00"]


def test_a_run_that_could_not_be_begun_is_made_up_for_after_a_restart() -> None:
    house = House()
    house.sync(wanted())
    house.fails = True
    house.timer.pass_time(15 * HOUR)
    house.fails = False
    house.restart(HOUR, wanted())
    assert house.dues() == ["11-25T02:00"]


def test_a_run_that_was_begun_and_not_noted_is_not_begun_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    house.sync(wanted())
    house.notes.fails = True
    house.timer.pass_time(15 * HOUR)
    assert house.dues() == ["11-25T02:00"]
    assert house.timer.failures == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    house.notes.fails = False
    house.timer.pass_time(DAY)
    assert house.dues() == ["11-25T02:00", "11-26T02:00"]


def test_a_journal_that_fails_at_first_is_asked_again() -> None:
    house = House()
    house.notes.fails = True
    with pytest.raises(StoreFailed):
        house.sync(wanted(), wanted("b"))
    house.notes.fails = False
    house.sync(wanted(), wanted("b"))
    house.timer.pass_time(15 * HOUR)
    assert sorted(name for name, _ in house.begun) == ["b", "nightly"]


@pytest.mark.parametrize("change", ["removed", "edited", "other VMs"])
def test_a_schedule_changed_while_its_run_is_begun(change: str) -> None:
    house = House()
    house.sync(wanted())
    into = {
        "removed": (),
        "edited": (wanted(line="0 3 * * *"),),
        "other VMs": (wanted("nightly", "0 2 * * *", "x"),),
    }

    def submit(schedule: Wanted, due: datetime) -> None:
        House.submit(house, schedule, due)
        house.scheduler.sync(into[change])

    scheduler = Scheduler(house.timer, house.clock, house.notes, submit, UTC)
    house.scheduler = scheduler
    house.timer.cancel("schedule nightly")
    scheduler.sync((wanted(),))
    house.timer.pass_time(14 * HOUR)
    following = {
        "removed": {},
        "edited": {"nightly": utc("11-25T03:00")},
        "other VMs": {"nightly": utc("11-26T02:00")},
    }
    assert scheduler.next_runs() == following[change]
    assert set(house.timer.alarms().values()) == set(following[change].values())
    house.timer.pass_time(2 * HOUR)
    assert house.dues() == (
        ["11-25T02:00", "11-25T03:00"] if change == "edited" else ["11-25T02:00"]
    )
