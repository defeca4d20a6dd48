"""The page as its users see it: a real browser, PHP, a real daemon, a VM on a real libvirtd."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.browser import PROGRAM, Browser, browser
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
            yield Stage(host, web, one, vms)


def row(vm: TestVm) -> str:
    return f"tr[data-uuid='{vm.uuid}']"


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
