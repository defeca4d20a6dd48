"""The time zone of a machine, however it is told: Debian, Slackware, Unraid, and none at all."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from vm_babysitter.adapters.host_zone import host_zone
from vm_babysitter.ports import HostZone

SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
BERLIN = (2.0, 1.0)
TOKYO = (9.0, 9.0)


def hours(found: HostZone) -> tuple[float, float]:
    """Offsets in summer and in winter."""
    offsets = [moment.astimezone(found.zone).utcoffset() for moment in (SUMMER, WINTER)]
    assert None not in offsets
    return tuple((o or timedelta()) / timedelta(hours=1) for o in offsets)  # type: ignore[return-value]


def rules(name: str) -> bytes:
    return (resources.files("tzdata") / "zoneinfo" / name).read_bytes()


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def link(root: Path, name: str, target: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "target",
    [
        "/usr/share/zoneinfo/Europe/Berlin",
        "../usr/share/zoneinfo/Europe/Berlin",
        "/usr/share/zoneinfo/posix/Europe/Berlin",
        "/usr/share/zoneinfo/right/Europe/Berlin",
    ],
)
def test_a_link_says_the_name_even_if_the_file_is_not_there(tmp_path: Path, target: str) -> None:
    link(tmp_path, "etc/localtime", target)
    found = host_zone(tmp_path, {})
    assert (found.name, hours(found), found.note) == ("Europe/Berlin", BERLIN, "")


def test_a_link_to_a_link(tmp_path: Path) -> None:
    link(tmp_path, "etc/localtime", "/etc/localtime-copied-from")
    link(tmp_path, "etc/localtime-copied-from", "/usr/share/zoneinfo/Europe/Berlin")
    assert host_zone(tmp_path, {}).name == "Europe/Berlin"


def test_what_the_clock_goes_by_counts_more_than_what_is_written_elsewhere(tmp_path: Path) -> None:
    link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    put(tmp_path, "etc/timezone", "Asia/Tokyo\n")
    put(tmp_path, "var/local/emhttp/var.ini", 'timeZone="Asia/Tokyo"\n')
    assert host_zone(tmp_path, {}).name == "Europe/Berlin"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("etc/timezone", "Europe/Berlin\n"),
        ("var/local/emhttp/var.ini", 'NAME="Tower"\ntimeZone="Europe/Berlin"\nfsState="Started"\n'),
        ("etc/localtime-copied-from", ""),
    ],
)
@pytest.mark.parametrize("copy", [True, False])
def test_a_copy_gets_the_name_that_is_told_elsewhere(
    tmp_path: Path, name: str, content: str, *, copy: bool
) -> None:
    if copy:
        put(tmp_path, "etc/localtime", rules("Europe/Berlin"))
    if content:
        put(tmp_path, name, content)
    else:
        link(tmp_path, name, "/usr/share/zoneinfo/Europe/Berlin")
    found = host_zone(tmp_path, {})
    assert (found.name, hours(found), found.note) == ("Europe/Berlin", BERLIN, "")


@pytest.mark.parametrize("told", ["Asia/Tokyo\n", "Nowhere/Land\n", "", "\0\xff"])
def test_a_copy_is_gone_by_whatever_is_told_elsewhere(tmp_path: Path, told: str) -> None:
    put(tmp_path, "etc/localtime", rules("Europe/Berlin"))
    put(tmp_path, "etc/timezone", told)
    found = host_zone(tmp_path, {})
    assert (found.name, hours(found)) == ("", BERLIN)


def test_a_link_elsewhere_is_read_as_a_copy(tmp_path: Path) -> None:
    put(tmp_path, "boot/config/localtime", rules("Asia/Tokyo"))
    link(tmp_path, "etc/localtime", "../boot/config/localtime")
    assert hours(host_zone(tmp_path, {})) == TOKYO


@pytest.mark.parametrize("value", ["Asia/Tokyo", ":Asia/Tokyo", ":/usr/share/zoneinfo/Asia/Tokyo"])
def test_the_variable_comes_first(tmp_path: Path, value: str) -> None:
    link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    found = host_zone(tmp_path, {"TZ": value})
    assert (found.name, hours(found), found.note) == ("Asia/Tokyo", TOKYO, "")


@pytest.mark.parametrize(
    "value",
    [
        "Nowhere/Land",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "../x",
        "/etc",
        "Europe",
        "a\0b",
        "猫",
        "\udcff",
    ],
)
def test_a_variable_that_names_none_is_passed_over_with_a_note(tmp_path: Path, value: str) -> None:
    link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    found = host_zone(tmp_path, {"TZ": value})
    assert found.name == "Europe/Berlin"
    assert repr(value) in found.note


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    assert host_zone(tmp_path, {"TZ": " "}).note == ""


@pytest.mark.parametrize("odd", ["nothing", "loop", "folder", "text", "nowhere"])
def test_without_any_the_c_library_is_asked(tmp_path: Path, odd: str) -> None:
    match odd:
        case "loop":
            link(tmp_path, "etc/localtime", "localtime")
        case "folder":
            (tmp_path / "etc/localtime").mkdir(parents=True)
        case "text":
            put(tmp_path, "etc/localtime", "TZif, or so")
        case "nowhere":
            link(tmp_path, "etc/localtime", "/usr/share/zoneinfo/Nowhere/Land")
    script = (
        "import json, pathlib, sys; from vm_babysitter.adapters.host_zone import host_zone;"
        "z = host_zone(pathlib.Path(sys.argv[1]), {}); print(json.dumps([z.name, z.note]))"
    )
    for variable, name, note in (
        ("XST-5:30", "UTC+05:30", "in summer and in winter"),
        ("UTC", "UTC", "all times are UTC"),
    ):
        output = subprocess.run(
            [sys.executable, "-c", script, tmp_path],
            env={**os.environ, "TZ": variable, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        found = json.loads(output)
        assert found[0] == name
        assert note in found[1]


def test_zones_that_the_system_lacks_come_with_us() -> None:
    script = (
        "from zoneinfo import ZoneInfo, TZPATH; assert not TZPATH;"
        "print(ZoneInfo('Africa/Casablanca'))"
    )
    env = {**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True)
    assert ended.stdout == b"Africa/Casablanca\n"


def test_this_machine_has_one() -> None:
    assert host_zone().zone.utcoffset(datetime(2026, 1, 1)) is not None  # noqa: DTZ001
