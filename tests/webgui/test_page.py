"""The page as its users see it: a real browser, PHP, a real daemon, a VM on a real libvirtd."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.browser import PROGRAM, Browser, Tab, browser
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.php import Web, php
from tests.support.served import short_folder
from tests.support.unraid_host import UnraidHost
from tests.support.vm import MIB, DiskSpec, TestVm, vms_on

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
    pytest.mark.skipif(PROGRAM is None, reason="there is no chromium"),
]
ODD = "<img src=x onerror=\"document.title='bad'\"> & \"b\" 'c' ü " + "n" * 150
APPLY, SAID = ".vmb-apply", ".vmb-settings .vmb-said"
STORE_WRONG = "[data-path='store.path'] .vmb-wrong"


@dataclass(frozen=True)
class Stage:
    """What a test has."""

    host: UnraidHost
    web: Web
    browser: Browser
    vms: tuple[TestVm, ...]
    """One with an ordinary name, one with an odd one."""


@pytest.fixture(scope="module")
def stage(libvirtd: PrivateLibvirtd) -> Iterator[Stage]:
    with short_folder() as folder, vms_on(libvirtd, folder) as vm:
        vms = tuple(vm(name, (DiskSpec("vda", size=16 * MIB),)) for name in ("web", ODD))
        host = UnraidHost(folder / "r", libvirtd.uri)
        host.array("Started")
        with host.disks(), php(host) as web, browser(folder) as one:
            (host.pool / "backups").mkdir()
            (host.pool / "others").mkdir()
            yield Stage(host, web, one, vms)


@pytest.fixture
def daemon(stage: Stage) -> Iterator[UnraidHost]:
    """A server whose daemon runs, set up."""
    host = stage.host
    host.config.joinpath("settings.json").unlink(missing_ok=True)
    assert host.rc("start").code == 0
    host.answers()
    host.api.configure(
        store={"path": str(host.pool / "backups")},
        schedules=[{"name": "Backup", "when": "30 2 * * *"}],
    )
    for vm in stage.vms:
        host.api.learns_of(vm.name)
    try:
        yield host
    finally:
        host.rc("stop")


@pytest.fixture
def tab(stage: Stage, daemon: UnraidHost) -> Iterator[Tab]:
    """The page, loaded."""
    tab = stage.browser.tab()
    tab.open(stage.web.page)
    tab.sees("#vmb", "Version")
    yield tab
    tab.close()


def row(vm: TestVm) -> str:
    return f"tr[data-uuid='{vm.uuid}']"


def asks_again(tab: Tab) -> None:
    """Wait until the page has asked for everything once more."""
    tab.run(
        "window.asked = 0; window.old = window.old || window.fetch;"
        "window.fetch = function (to, how) { var last = how.body.get('path') === '/settings';"
        "  return window.old(to, how).finally(function () { window.asked += last; }); }; 1"
    )
    tab.looks()
    tab.until("window.asked > 0")
    tab.run("new Promise(function (done) { setTimeout(done, 200); })")


def test_set_up_back_up_and_see_what_came_of_it(stage: Stage) -> None:
    host, tab = stage.host, stage.browser.tab()
    host.config.joinpath("settings.json").unlink(missing_ok=True)
    tab.open(stage.web.page)
    tab.sees(".vmb-sentence", "does not run, so no VM is backed up")
    tab.click(".vmb-start")
    tab.sees(".vmb-sentence", "not set up yet")
    tab.sees(".vmb-vms", "no backup yet")
    tab.type("#vmb-store", "backups")
    tab.click(APPLY)
    tab.sees(STORE_WRONG, "must be a whole path")
    tab.type("#vmb-store", f"{host.pool}/backups/")
    tab.choose("#vmb-often", "week")
    tab.choose("#vmb-weekday", "3")
    tab.click(APPLY)
    tab.sees(SAID, "Saved.")
    tab.sees(".vmb-next", "Every Wednesday at 00:00.")
    settings = json.loads(host.config.joinpath("settings.json").read_text())
    assert settings["store"]["path"] == str(host.pool / "backups")
    assert settings["schedules"][0]["when"] == "0 0 * * 3"
    for vm in stage.vms:
        tab.sees(f"{row(vm)} .vmb-name", vm.name)
        tab.click(f"{row(vm)} button")
        tab.sees(f"{row(vm)} .vmb-result", "is complete: full backup")
        tab.sees(f"{row(vm)} .vmb-point", "today")
    tab.sees(".vmb-sentence", "All is well: each of 2 VMs was backed up")
    assert tab.run("document.title") == "VM Babysitter"
    assert {job["state"] for job in host.api.jobs()} == {"done"}
    host.rc("stop")
    tab.close()


def test_settings_that_cannot_be_read_are_told_and_vms_stay(
    stage: Stage, daemon: UnraidHost, tab: Tab
) -> None:
    daemon.config.joinpath("settings.json").write_text("{")
    tab.open(stage.web.page)
    tab.sees(".vmb-unread", "settings.json")
    tab.sees(".vmb-vms", "web")
    assert not tab.run("document.querySelector('.vmb-apply').offsetParent")


def test_what_others_change_is_not_changed_back(daemon: UnraidHost, tab: Tab) -> None:
    tab.choose("#vmb-often", "week")
    daemon.api.configure(store={"path": str(daemon.pool / "others")})
    asks_again(tab)
    assert tab.run("document.querySelector('#vmb-store').value") == str(daemon.pool / "others")
    tab.click(APPLY)
    tab.sees(SAID, "Saved.")
    settings = daemon.api.get("/settings")["settings"]
    assert settings["store"]["path"] == str(daemon.pool / "others")
    assert settings["schedules"][0]["when"] == "30 2 * * 1"


def test_who_changes_the_same_as_another_is_told(daemon: UnraidHost, tab: Tab) -> None:
    tab.type("#vmb-store", str(daemon.pool / "backups2"))
    daemon.api.configure(store={"path": str(daemon.pool / "others")})
    asks_again(tab)
    tab.sees(STORE_WRONG, "Somebody else has changed this")
    assert tab.run("document.querySelector('#vmb-store').value") == str(daemon.pool / "backups2")
    tab.click(".vmb-undo")
    assert tab.run("document.querySelector('#vmb-store').value") == str(daemon.pool / "others")
    assert tab.text(STORE_WRONG) == ""


def test_what_is_saved_too_late_is_not_lost(daemon: UnraidHost, tab: Tab) -> None:
    tab.type("#vmb-store", str(daemon.pool / "others"))
    daemon.api.configure(schedules=[{"name": "Backup", "when": "15 4 * * *"}])
    tab.click(APPLY)
    tab.sees(".vmb-other", "Press Apply again")
    tab.click(APPLY)
    tab.sees(SAID, "Saved.")
    settings = daemon.api.get("/settings")["settings"]
    assert settings["store"]["path"] == str(daemon.pool / "others")
    assert settings["schedules"][0]["when"] == "15 4 * * *"


def test_a_refusal_stays_until_the_button_is_pressed_again(
    stage: Stage, daemon: UnraidHost, tab: Tab
) -> None:
    daemon.api.configure(store={"path": ""})
    button = f"{row(stage.vms[1])} button"
    tab.click(button)
    tab.sees(row(stage.vms[1]), "No backup folder is set up")
    asks_again(tab)
    asks_again(tab)
    tab.sees(row(stage.vms[1]), "No backup folder is set up")
    daemon.api.configure(store={"path": str(daemon.pool / "backups")})
    tab.click(button)
    tab.sees(f"{row(stage.vms[1])} .vmb-result", "today")
    assert "no backup folder" not in tab.text(row(stage.vms[1]))


def test_what_says_the_same_is_not_drawn_anew(daemon: UnraidHost, tab: Tab) -> None:
    # Else it is read out again and again, and nobody can mark and copy an error.
    daemon.api.configure(store={"path": str(daemon.pool / "nowhere")})
    asks_again(tab)
    tab.sees(".vmb-todo", "nowhere")
    tab.run(
        "window.kept = ['.vmb-sentence', '.vmb-todo', '.vmb-system .vmb-checks'].map("
        "function (each) { return document.querySelector(each).firstChild; }); 1"
    )
    asks_again(tab)
    assert tab.run("window.kept.every(function (each) { return each.isConnected; })")


def test_a_daemon_that_hangs_is_told_within_seconds_and_comes_back(
    stage: Stage, daemon: UnraidHost, tab: Tab
) -> None:
    pid = daemon.pid
    assert pid is not None
    tab.type("#vmb-store", "/mnt/half-writ")
    os.kill(pid, signal.SIGSTOP)
    try:
        tab.looks()
        tab.sees(".vmb-sentence", "did not answer within 8 seconds", 20)
        tab.sees(".vmb-sentence", "runs and does not answer yet")
        tab.sees(".vmb-todo", "rc.vm-babysitter restart")
    finally:
        os.kill(pid, signal.SIGCONT)
    tab.sees(".vmb-vms", "web")
    assert tab.run("document.querySelector('#vmb-store').value") == "/mnt/half-writ"
    assert tab.text(".vmb-down") == ""


def test_times_are_those_of_the_server(stage: Stage, daemon: UnraidHost) -> None:
    tab = stage.browser.tab()
    tab.zone("Pacific/Kiritimati")  # 14 hours before the server's UTC
    tab.open(stage.web.page)
    said = tab.sees(".vmb-next", "Next:")
    assert "02:30" in said.partition("Next:")[2], said
    tab.close()


@pytest.mark.parametrize(
    "answer",
    [
        'http_response_code(403); echo \'{"error":"csrf"}\';',
        "http_response_code(500); echo '<html>';",
        "echo '';",
    ],
)
def test_an_answer_that_is_none_is_put_into_words(
    stage: Stage, daemon: UnraidHost, tab: Tab, answer: str
) -> None:
    bridge = daemon.plugin / "include/api.php"
    ours = bridge.read_text()
    bridge.write_text(f"<?php {answer}")
    try:
        tab.looks()
        tab.sees(".vmb-sentence", "or you are logged out")
        tab.sees(".vmb-todo", "Load the page again.")
    finally:
        bridge.write_text(ours)
    tab.looks()
    tab.sees(".vmb-sentence", "All is well")


def test_a_web_server_that_never_answers_is_told(
    stage: Stage, daemon: UnraidHost, tab: Tab
) -> None:
    bridge = daemon.plugin / "include/api.php"
    ours = bridge.read_text()
    bridge.write_text("<?php sleep(5);")
    try:
        tab.run("var slow = setTimeout; setTimeout = (does, ms) => slow(does, ms / 20); 1")
        tab.looks()
        tab.sees(".vmb-sentence", "The server cannot be reached")
    finally:
        bridge.write_text(ours)
    tab.sees(".vmb-sentence", "All is well")
