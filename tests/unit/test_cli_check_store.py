"""`check-store`: what it prints, and how it ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from tests.support.points import BEGAN
from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.store_check import Place

GOOD = Place("/a place", mount="/mnt/disk1", filesystem="xfs")


@pytest.fixture
def app(ram_path: Path) -> FakeApp:
    app = FakeApp(EngineWorld(ram_path, name=NAME))
    app.probe.place = GOOD
    return app


def test_each_finding_has_a_line_and_what_they_come_to_is_said_last(app: FakeApp) -> None:
    result = app.call("check-store", "/a place")
    assert result.exit_code == 0
    first, *_, last = result.stdout.splitlines()
    assert first == "ok       It is a folder that can be read and written to."
    assert last == "/a place is fit to hold backups."
    assert app.probe.asked == [("look", Path("/a place"), [f"{NAME} (vda)"])]


@pytest.mark.parametrize(
    ("place", "code", "words", "last"),
    [
        (replace(GOOD, mount="/"), 3, "warning  It lies on", "can hold backups, but see the"),
        (replace(GOOD, exists=False), 1, "unfit    There is no", "is not fit to hold backups."),
    ],
)
def test_it_ends_by_what_was_found_and_says_the_way_out(
    app: FakeApp, place: Place, code: int, words: str, last: str
) -> None:
    app.probe.place = place
    result = app.call("check-store", "/a place")
    assert result.exit_code == code
    assert words in result.stdout
    assert "\n         -> " in result.stdout
    assert last in result.stdout.splitlines()[-1]


def test_programs_are_told_the_same(app: FakeApp) -> None:
    app.probe.place = replace(GOOD, foreign=("holiday.jpg",))
    data = app.json("check-store", "/a place", code=1)
    assert (data["path"], data["verdict"], data["taken_from"]) == ("/a place", "unfit", None)
    (bad,) = (check for check in data["findings"] if check["verdict"] != "ok")
    assert bad["check"] == "content"
    assert bad["way_out"]


def test_taking_over_comes_first_and_says_whose_it_was(app: FakeApp) -> None:
    app.probe.had = Lease("h" * 32, "the 'tower'", BEGAN)
    result = app.call("check-store", "--take-over", "/a place")
    assert result.exit_code == 0
    assert "it belonged to the host \"the 'tower'\" since 2026-11-22 02:15" in result.stdout
    assert [asked[0] for asked in app.probe.asked] == ["take over", "look"]
    assert app.json("check-store", "--take-over", "x")["taken_from"]["host_name"] == "the 'tower'"
    app.probe.had = None
    assert "Taken over" not in app.call("check-store", "--take-over", "/a place").stdout
