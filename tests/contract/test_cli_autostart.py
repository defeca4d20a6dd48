"""`autostart` on the command line, over a real socket."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.services import NAME
from tests.support.fakes.working import Daemon, a_daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    store = tmp_path / "store"
    store.mkdir()
    with a_daemon(store) as found:
        found.services.raw["autostart"] = {"vms": [{"vm": "a"}, {"vm": NAME}], "taken": ["u"]}
        yield found


def listed(daemon: Daemon) -> list[Any]:
    section = daemon.services.raw["autostart"]
    assert section["taken"] == ["u"]
    return list(section["vms"])


def test_the_list_says_what_each_waits_for_and_how_the_last_start_went(daemon: Daemon) -> None:
    text = daemon.call("autostart", "list").stdout
    assert NAME in text
    assert "30 s" in text
    assert "tcp:nas:445 (60 s, then start)" in text
    assert "failed: no such image" in text
    assert "autostart set --take-over " in text
    assert "is finished." in text
    assert daemon.json("autostart", "list")["run"]["run"] == "boot-1"


def test_a_vm_is_changed_where_it_is_in_the_list(daemon: Daemon) -> None:
    options = ["--delay", "5", "--wait-for", "vm:-x", "--wait-for", "path:/mnt/x", "--tries", "1"]
    daemon.call("autostart", "set", "--otherwise", "skip", *options, "--", NAME)
    assert listed(daemon) == [
        {"vm": "a"},
        {
            "vm": NAME,
            "delay": 5,
            "wait_for": ["vm:-x", "path:/mnt/x"],
            "otherwise": "skip",
            "tries": 1,
        },
    ]
    daemon.call("autostart", "set", daemon.services.uuid, "--no-wait")
    assert listed(daemon)[1]["wait_for"] == []


def test_a_new_one_comes_last_by_its_uuid(daemon: Daemon) -> None:
    daemon.services.raw["autostart"]["vms"] = []
    daemon.services.listed = False
    daemon.call("autostart", "set", NAME, "--delay", "1")
    assert listed(daemon) == [{"vm": daemon.services.uuid, "delay": 1}]


def test_the_order_is_that_of_those_named_then_the_rest(daemon: Daemon) -> None:
    daemon.call("autostart", "order", NAME, NAME)
    assert listed(daemon) == [{"vm": NAME}, {"vm": "a"}]
    assert daemon.json("autostart", "order", "b", code=2)["error"]["code"] == "invalid-input"


def test_it_leaves_the_list(daemon: Daemon) -> None:
    daemon.call("autostart", "set", NAME, "--remove")
    assert listed(daemon) == [{"vm": "a"}]


@pytest.mark.parametrize(("option", "take"), [("--take-over", True), ("--give-back", False)])
def test_its_own_switch_is_taken_over_or_given_back(
    daemon: Daemon, option: str, take: bool
) -> None:
    daemon.call("autostart", "set", NAME, option)
    assert ("take_over_autostart", NAME, take) in daemon.services.asked


@pytest.mark.parametrize(
    "options", [["--remove", "--delay", "1"], ["--no-wait", "--wait-for", "vm:a"], ["--delay", "x"]]
)
def test_what_makes_no_sense_is_wrong_usage(daemon: Daemon, options: list[str]) -> None:
    assert daemon.call("autostart", "set", NAME, *options).exit_code == 2
    assert listed(daemon) == [{"vm": "a"}, {"vm": NAME}]


def test_vms_are_started_now(daemon: Daemon) -> None:
    text = daemon.call("autostart", "now").stdout
    assert "autostart list` says how it goes." in text
    assert ("begin_autostart", None) in daemon.services.asked
