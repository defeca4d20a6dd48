"""Settings of every version are read for ever, and all keys are documented."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vm_babysitter.config.check import check
from vm_babysitter.config.describe import describe, schema, sections
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.config.migrate import STEPS, VERSION, migrate
from vm_babysitter.config.reference import markdown
from vm_babysitter.config.sections.autostart import Autostart, Start
from vm_babysitter.config.sections.backup import Backup
from vm_babysitter.config.sections.hooks import Hook, Hooks
from vm_babysitter.config.sections.log import Log
from vm_babysitter.config.sections.notify import Notify
from vm_babysitter.config.sections.per_vm import BackupOfOne, HooksOfOne, OneVm
from vm_babysitter.config.sections.schedules import Schedule
from vm_babysitter.config.sections.space import Space
from vm_babysitter.config.sections.store import Store
from vm_babysitter.config.sections.vms import Vms
from vm_babysitter.config.sections.waits import Waits
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/data/settings-1.json"
KEYS = describe()

WHAT_VERSION_1_MEANS = Settings(
    store=Store(
        "/mnt/user/backups/vms",
        "9b2d6c1e-6a55-4f0e-8f5e-0a4f5d1f7c33",
        "uuid:5f0c1b1e-9d8e-4c52-8a6b-3f8f3c6f2a11",
    ),
    schedules=(
        Schedule("nightly", "30 2 * * *"),
        Schedule("Beweis, sonntags", "@weekly", "verify", ("servers", 'Büro "2"'), False),
    ),
    vms=Vms(
        ignored=("-scratch", "."),
        chosen=("0D6B2A52-6F0D-4A5F-9A36-6A3A3F1B9F10",),
        include_new=False,
        seen=("4c0d0d5e-8f0f-4b0e-9d37-0c2f5be0a001",),
        groups={"servers": ("router", "mail.example")},
    ),
    backup=Backup(True, 50 << 20, False, 2, 10, 4, True),
    hooks=Hooks(
        Hook(("/boot/config/before.sh", "", "--now"), 30, "stop"), Hook(("/bin/true",), 5, "warn")
    ),
    space=Space("7.5 %", 20 << 30),
    waits=Waits("ignore", "ignore"),
    autostart=Autostart(
        (
            Start("router", 10, ("path:/mnt/disks/usb", "tcp:192.168.1.1:53"), 60, "skip", 10),
            Start("0D6B2A52-6F0D-4A5F-9A36-6A3A3F1B9F10"),
        ),
        ("4c0d0d5e-8f0f-4b0e-9d37-0c2f5be0a001",),
    ),
    notify=Notify(
        unraid=False,
        success="each",
        daily_at="23:59",
        stale_days=0,
        webhook="https://user:pass@ntfy.example:8443/büro?token=a&b=%20",
        health="http://192.168.1.5/ping/x",
    ),
    log=Log("debug", 1 << 20, 3, 30),
    per_vm={
        'Büro "2"': OneVm(
            BackupOfOne(False, 0, True, 0, 0, False),
            HooksOfOne(Hook(), Hook(("/bin/echo", "$VM; 猫"), 60, "stop")),
        ),
        ".": OneVm(BackupOfOne(longest=48)),
    },
)


def test_a_file_of_version_1_means_what_it_meant(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(GOLDEN.read_bytes())
    loaded = SettingsFile(path).load()
    assert loaded.settings == WHAT_VERSION_1_MEANS
    assert [note.path for note in loaded.checked.notes if "does not know" in note.text] == ["later"]


def test_what_is_not_known_in_it_survives_a_change(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(GOLDEN.read_bytes())
    SettingsFile(path).change({("log", "files"): 4})
    before, after = json.loads(GOLDEN.read_bytes()), json.loads(path.read_bytes())
    assert after.pop("log") == {"level": "debug", "size": 1 << 20, "files": 4, "job_days": 30}
    assert after["later"] == before["later"]
    assert list(after) == [key for key in before if key != "log"]


def paths_in(value: Any, path: str = "") -> set[str]:
    """Return the keys of a document as ``describe`` writes them."""
    if path in {"schedules", "autostart.vms", "per_vm"}:
        inner = ".<VM>" if path == "per_vm" else "[]"
        many = value if isinstance(value, list) else value.values()
        return set().union(*(paths_in(one, path + inner) for one in many))
    if not isinstance(value, dict) or path == "vms.groups":
        return {path}
    return set().union(
        *(paths_in(one, f"{path}.{key}" if path else key) for key, one in value.items())
    )


def test_the_file_of_version_1_has_every_key() -> None:
    document = json.loads(GOLDEN.read_bytes())
    del document["version"], document["later"]
    assert paths_in(document) == {key.path for key in KEYS}


def test_the_reference_is_current() -> None:
    assert (ROOT / "SETTINGS.md").read_text() == markdown()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_is_described_and_its_example_is_right(key: Any) -> None:
    assert key.description.endswith((".", "%"))
    assert key.example is not None
    assert key.type
    assert placed(key.path, key.example)
    if not key.required and not key.path.startswith("per_vm.<VM>.backup"):
        assert placed(key.path, key.default)


@pytest.mark.parametrize("key", [k for k in KEYS if k.path.endswith(".argv")], ids=lambda k: k.path)
def test_a_command_that_is_an_example_can_be_run_on_unraid(key: Any) -> None:
    assert not key.example[0].startswith("/boot/"), "no file there can be run by itself"


def placed(path: str, value: Any) -> bool:
    """Whether settings with this value at this path are right."""
    for step in reversed(path.replace("[]", ".0").replace("<VM>", "a VM").split(".")):
        value = [value] if step == "0" else {step: value}
    if "schedules" in value:
        value["schedules"][0] = {"name": "x", "when": "@daily", **value["schedules"][0]}
    if isinstance(value.get("autostart", {}).get("vms"), list):
        value["autostart"]["vms"] = [{"vm": "x", **one} for one in value["autostart"]["vms"]]
    checked = check({"version": 1, **value})
    return not checked.errors and not any("does not know" in note.text for note in checked.notes)


def test_a_value_outside_the_limits_of_a_key_is_refused() -> None:
    limited = [key for key in KEYS if key.most is not None and key.least is not None]
    assert len(limited) > 8
    for key in limited:
        assert key.least is not None
        assert key.most is not None
        assert placed(key.path, key.most)
        assert not placed(key.path, key.most + 1)
        assert not placed(key.path, key.least - 1)


def test_what_the_program_fills_in_is_marked() -> None:
    own = ["store.id", "store.filesystem", "vms.seen", "autostart.taken"]
    assert [key.path for key in KEYS if key.own] == own


def test_sections_are_those_of_the_settings() -> None:
    assert [one.name for one in sections()] == list(Settings.__struct_fields__)
    assert all(one.description for one in sections())


def test_the_schema_is_json_and_knows_every_section() -> None:
    text = json.dumps(schema())
    definition = json.loads(text)["$defs"]["Settings"]
    assert "x-type" not in text
    assert set(definition["properties"]) == {"version", *Settings.__struct_fields__}
    assert definition["required"] == ["version"]
    limit = json.loads(text)["$defs"]["Backup"]["properties"]["limit"]
    assert limit["type"] == ["integer", "string"]
    assert limit["description"]


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Settings().backup.limit = 7  # type: ignore[misc]
    assert msgspec.structs.replace(Settings().backup, limit=7).limit == 7


def first(document: dict[str, object]) -> dict[str, object]:
    old = document.pop("old")
    return {**document, "moved": old}


def second(document: dict[str, object]) -> dict[str, object]:
    return {**document, "added": 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"version": 1, "old": 1, "x": 0}, {"version": 3, "x": 0, "moved": 1, "added": 2}),
        ({"version": 2, "moved": 1}, {"version": 3, "moved": 1, "added": 2}),
        ({"version": 3, "old": 1}, {"version": 3, "old": 1}),
    ],
)
def test_older_settings_take_every_step_from_theirs_on(
    before: dict[str, object], after: dict[str, object]
) -> None:
    given = dict(before)
    assert migrate(before, "x", [first, second]) == after
    assert before == given


def test_newer_settings_are_refused() -> None:
    with pytest.raises(UnsupportedFormat):
        migrate({"version": 4}, "x", [first, second])


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True])
def test_settings_say_which_version_they_have(version: Any) -> None:
    with pytest.raises(Damaged):
        migrate({"version": version}, "x")


def test_the_version_follows_from_the_steps() -> None:
    assert len(STEPS) + 1 == VERSION
