"""The plugin's file, as Unraid reads it: installed, at boot, updated, removed, or not."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from build import documents, release
from build.release import Publisher
from tests.package.conftest import Built
from tests.support.bare_root import BareRoot
from tests.support.daemon import until
from tests.support.mounts import ram_disk
from tests.support.plugin_manager import InstallFailed, PluginManager

PUBLISHER = Publisher(
    author='A "B" & <C>',
    project="https://example.org/vm-babysitter",
    support="https://example.org/support?a=1&b=2",
    plugin_url="https://example.org/vm-babysitter.plg",
    package_url="https://example.org/releases/{version}",
    template_url="https://example.org/vm-babysitter.xml",
    icon_url="https://example.org/icon.png",
)
OLD, NEW = "2026.01.01", "2026.01.01a"
_COMMAND = "usr/local/sbin/vm-babysitter"
_SCRIPTS = "usr/local/emhttp/plugins/vm-babysitter/scripts"
_PART = "usr/local/vm-babysitter/backend/x.py"
_RC = """#!/bin/bash
echo "rc $1" >>/rc.log
exit {code}
"""


@dataclass(frozen=True)
class Released:
    """A package as it is published; that of tests is small and has a scripted rc script."""

    plg: Path
    package: Path
    url: str


def released(folder: Path, version: str, rc_code: int = 0) -> Released:
    tree = folder / f"tree-{version}"
    for name, text in {
        "etc/rc.d/rc.vm-babysitter": _RC.format(code=rc_code),
        _COMMAND: f"#!/bin/bash\necho {version}\n",
        f"{_SCRIPTS}/installed": "echo started >>/rc.log",
        f"{_SCRIPTS}/autostart-guard": 'echo "guard $1" >>/rc.log',
        _PART: "x = 1\n",
        "install/doinst.sh": "",
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    package = folder / release.package_file(version)
    names = sorted(path.name for path in tree.iterdir())
    subprocess.run(["tar", "-cJf", str(package), "-C", str(tree), *names], check=True)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    rendered = documents.render(documents.Package(version, digest), PUBLISHER, "## Unreleased\n- x")
    plg = folder / f"{version}.plg"
    plg.write_text(rendered[documents.PLG])
    url = f"https://example.org/releases/{version}/{package.name}"
    return Released(plg, package, url)


@pytest.fixture
def manager(tmp_path: Path) -> PluginManager:
    return PluginManager(BareRoot(tmp_path / "root"))


@pytest.fixture
def old(tmp_path: Path, manager: PluginManager) -> Released:
    made = released(tmp_path, OLD)
    manager.web[made.url] = made.package.read_bytes()
    return made


@pytest.fixture
def new(tmp_path: Path, manager: PluginManager) -> Released:
    made = released(tmp_path, NEW)
    manager.web[made.url] = made.package.read_bytes()
    return made


def kept(manager: PluginManager) -> list[str]:
    return sorted(path.name for path in manager.flash.iterdir())


def log(manager: PluginManager) -> list[str]:
    path = manager.bare.root / "rc.log"
    return path.read_text().splitlines() if path.exists() else []


def command_says(manager: PluginManager) -> str:
    return manager.bare.call("/" + _COMMAND).strip()


def test_it_is_installed_and_started_and_may_be_so_twice(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    assert command_says(manager) == OLD
    assert log(manager) == ["started"]
    manager.install(old.plg)
    assert manager.installed == [f"vm-babysitter-{OLD}-x86_64-1"]
    assert log(manager) == ["started", "rc stop", "started"]
    assert (manager.bare.root / "etc/rc.d").is_symlink()


def test_at_boot_it_is_installed_from_the_flash_drive_without_a_network(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    manager.web.clear()
    manager.reboot()
    manager.install(manager.bare.root / "boot/config/plugins/vm-babysitter.plg")
    assert command_says(manager) == OLD


def test_a_damaged_package_is_fetched_again_or_refused(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    manager.reboot()
    (manager.flash / old.package.name).write_bytes(b"damaged")
    manager.install(old.plg)
    assert command_says(manager) == OLD
    manager.reboot()
    (manager.flash / old.package.name).write_bytes(b"damaged")
    manager.web.clear()
    with pytest.raises(InstallFailed, match="download failure"):
        manager.install(old.plg)


def test_an_update_stops_the_daemon_and_leaves_one_package_and_the_settings(
    manager: PluginManager, old: Released, new: Released
) -> None:
    manager.install(old.plg)
    (manager.flash / "settings.json").write_text("{}")
    manager.install(new.plg)
    assert command_says(manager) == NEW
    assert log(manager) == ["started", "rc stop", "started"]
    assert manager.installed == [f"vm-babysitter-{NEW}-x86_64-1"]
    assert kept(manager) == ["settings.json", new.package.name]


def test_an_update_that_cannot_be_fetched_leaves_all_as_it_was(
    manager: PluginManager, old: Released, new: Released
) -> None:
    manager.install(old.plg)
    del manager.web[new.url]
    with pytest.raises(InstallFailed):
        manager.install(new.plg)
    assert log(manager) == ["started"]  # and was never stopped
    assert command_says(manager) == OLD
    manager.reboot()
    manager.web.clear()
    manager.install(manager.bare.root / "boot/config/plugins/vm-babysitter.plg")
    assert command_says(manager) == OLD


@pytest.mark.parametrize("fetched", [1.0, 0.5])
def test_an_update_that_a_power_cut_interrupts_can_be_made_again(
    manager: PluginManager, old: Released, new: Released, fetched: float
) -> None:
    manager.install(old.plg)
    content = new.package.read_bytes()
    (manager.flash / new.package.name).write_bytes(content[: int(len(content) * fetched)])
    manager.reboot()
    manager.install(manager.bare.root / "boot/config/plugins/vm-babysitter.plg")
    assert command_says(manager) == OLD
    manager.install(new.plg)
    assert command_says(manager) == NEW
    assert kept(manager) == [new.package.name]


def test_an_older_version_is_refused_and_changes_nothing(
    manager: PluginManager, old: Released, new: Released
) -> None:
    manager.install(new.plg)
    with pytest.raises(InstallFailed, match="older version"):
        manager.install(old.plg)
    assert command_says(manager) == NEW
    assert log(manager) == ["started"]


def test_a_daemon_that_cannot_be_stopped_does_not_keep_an_update_from_being_made(
    manager: PluginManager, new: Released, tmp_path: Path
) -> None:
    stuck = released(tmp_path, OLD, rc_code=1)
    manager.web[stuck.url] = stuck.package.read_bytes()
    manager.install(stuck.plg)
    manager.install(new.plg)
    assert command_says(manager) == NEW


def runs(manager: PluginManager) -> None:
    """Have Unraid say that it does not boot."""
    path = manager.bare.root / "var/local/emhttp/var.ini"
    path.parent.mkdir(parents=True)
    path.write_text('fsState="Started"\n')


def loses(manager: PluginManager, how: str) -> None:
    """Have the package tools lose a part of the package, and call that a success."""
    path = manager.bare.root / "usr/bin/upgradepkg"
    path.write_text(f"{path.read_text()}{how} /{_PART}\n")


@pytest.mark.parametrize("how", ["rm", ">"])
def test_what_was_not_unpacked_as_a_whole_is_no_success(
    manager: PluginManager, old: Released, new: Released, how: str
) -> None:
    manager.install(old.plg)
    runs(manager)
    loses(manager, how)
    with pytest.raises(InstallFailed, match="not installed as a whole"):
        manager.install(new.plg)
    assert old.package.name in kept(manager), "the next boot installs it"
    assert log(manager) == ["started", "rc stop"]


def test_at_boot_that_does_not_have_the_plugin_put_away(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    manager.reboot()
    notify = manager.bare.root / "usr/local/emhttp/webGui/scripts/notify"
    notify.parent.mkdir(parents=True)
    notify.write_text('#!/bin/bash\necho "$*" >/notified\n')
    notify.chmod(0o755)
    loses(manager, "rm")
    manager.install(manager.bare.root / "boot/config/plugins/vm-babysitter.plg")
    assert "No VM is backed up" in (manager.bare.root / "notified").read_text()
    assert log(manager) == ["started"]


def test_where_memory_is_full_nothing_is_touched(
    manager: PluginManager, old: Released, new: Released
) -> None:
    manager.install(old.plg)
    runs(manager)
    place = manager.bare.root / "usr/local"
    shutil.move(place, manager.bare.root / "local")
    with ram_disk(place, 8 << 20):
        shutil.copytree(manager.bare.root / "local", place, dirs_exist_ok=True)
        with pytest.raises(InstallFailed, match=r"[78] MiB are free. Nothing was changed"):
            manager.install(new.plg)
        assert command_says(manager) == OLD
        assert log(manager) == ["started"]


def test_removed_it_tells_of_vms_that_do_not_start_any_more(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    (manager.flash / "settings.json").write_text('{"autostart": {"taken": [\n "x"]}}')
    assert "do not start by themselves any more" in manager.remove()


@pytest.mark.parametrize("frozen", [True, False])
def test_removed_it_does_not_keep_a_guest_from_being_thawed(
    manager: PluginManager, old: Released, *, frozen: bool
) -> None:
    manager.install(old.plg)
    runtime = manager.bare.root / "run/vm-babysitter"
    (runtime / "api").mkdir(parents=True)
    (runtime / "daemon.out").touch()
    mark = runtime / "frozen-x"
    if frozen:
        mark.touch()
    assert ("virsh domfsthaw" in manager.remove()) is frozen
    assert (list(runtime.iterdir()) if runtime.exists() else []) == ([mark] if frozen else [])


def test_removed_without_a_record_it_leaves_nothing_either(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    (manager.bare.root / "var/lib/pkgtools/packages" / manager.installed[0]).unlink()
    manager.remove()
    for name in (_COMMAND, "etc/rc.d/rc.vm-babysitter"):
        assert not (manager.bare.root / name).exists()


def test_removed_it_says_what_stays_and_leaves_only_the_settings(
    manager: PluginManager, old: Released
) -> None:
    manager.install(old.plg)
    (manager.flash / "settings.json").write_text("{}")
    said = manager.remove()
    assert "all backups" in said
    assert "settings" in said
    assert "Autostart" not in said
    assert log(manager)[-2:] == ["rc stop", "guard stop"]
    assert kept(manager) == ["settings.json"]
    assert manager.installed == []
    for place in ("usr/local/vm-babysitter", "usr/local/emhttp/plugins/vm-babysitter"):
        assert not (manager.bare.root / place).exists()


def test_the_package_itself_is_installed_from_the_flash_drive_and_removed_without_a_trace(
    manager: PluginManager, built: Built
) -> None:
    def files() -> set[str]:
        places = [p for p in manager.bare.root.glob("*") if p.name not in {"proc", "sys", "dev"}]
        found = {f for place in places for f in place.rglob("*") if not f.is_dir()}
        return {str(f.relative_to(manager.bare.root)) for f in found}

    before = files()
    manager.flash.mkdir()
    shutil.copy(built.package, manager.flash)  # so no address is needed
    for _ in range(2):
        manager.install(built.document(documents.PLG))
        assert "Usage: vm-babysitter" in manager.bare.call(f"/{_COMMAND}", "--help")
        assert "does not run" in manager.bare.call(
            "/bin/bash", "-c", "/etc/rc.d/rc.vm-babysitter status || [[ $? == 3 ]]"
        )
        until(lambda: "rc.vm-babysitter revive" in manager.crontab)
    said = manager.remove()
    assert "vm-babysitter release --all" in said
    assert {name for name in files() - before if not name.startswith("tmp/inline")} == set()


def test_a_daemon_in_another_root_is_not_taken_for_this_ones(
    manager: PluginManager, built: Built
) -> None:
    """As one in a container: the host sees its process."""
    manager.bare.install(built.package)
    words = ("vm_babysitter", "--socket", "/run/vm-babysitter/api/api.socket", "serve", "--x")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words]) as other:
        try:
            said = manager.bare.call("/bin/bash", "/etc/rc.d/rc.vm-babysitter", "stop")
            assert said == "VM Babysitter does not run.\n"
            assert other.poll() is None
        finally:
            other.kill()


def test_versions_grow_as_texts() -> None:
    assert OLD < NEW < "2026.01.02"
    assert release.moment(OLD) < release.moment(NEW) < release.moment("2026.01.02")


def test_it_says_what_unraid_asks_of_it(built: Built) -> None:
    root = etree.parse(built.document(documents.PLG)).getroot()
    assert root.get("name") == "vm-babysitter"
    assert root.get("min") == "7.0.0"
    assert root.get("launch") == "Settings/VMBabysitter"
    assert root.get("version") == release.version()
    assert root.get("version") in (root.findtext("CHANGES") or "")
    names = {attribute for file in root.iter("FILE") for attribute in file.attrib}
    assert names <= {"Name", "Run", "Method"}  # they are case sensitive
    digests = {file.findtext("SHA256") for file in root.iter("FILE")} - {None}
    assert digests == {hashlib.sha256(built.package.read_bytes()).hexdigest()}


def test_its_scripts_and_documents_are_well_formed(built: Built, tmp_path: Path) -> None:
    for name in documents.NAMES:
        subprocess.run(["xmllint", "--noout", str(built.document(name))], check=True)
    root = etree.parse(built.document(documents.PLG)).getroot()
    for number, text in enumerate(root.iterfind("FILE/INLINE")):
        script = tmp_path / f"{number}.sh"
        script.write_text("#!/bin/bash\n" + (text.text or ""))
        subprocess.run(["shellcheck", str(script)], check=True)


def test_names_of_publishers_may_hold_anything() -> None:
    rendered = documents.render(documents.Package(OLD, "0" * 64), PUBLISHER, "## Unreleased\n- <b>")
    root = etree.fromstring(rendered[documents.PLG].encode())
    assert root.get("author") == PUBLISHER.author
    assert root.get("support") == PUBLISHER.support
    assert "- <b>" in (root.findtext("CHANGES") or "")
    application = etree.fromstring(rendered[documents.APPLICATION].encode())
    assert application.findtext("PluginURL") == root.get("pluginURL")
    assert application.findtext("PluginAuthor") == PUBLISHER.author
