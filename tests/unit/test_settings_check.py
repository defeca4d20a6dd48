"""Settings are checked: all mistakes at once, in plain words, with the way out."""

import json
from typing import Any

import msgspec
import pytest

from vm_babysitter.config.check import Checked, check
from vm_babysitter.config.context import Context, VmRef
from vm_babysitter.config.settings import Settings

WINDOWS = VmRef("0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10", "Windows 11")
ROUTER = VmRef("4c0d0d5e-8f0f-4b0e-9d37-0c2f5be0a001", "router")
KNOWN = Context((WINDOWS, ROUTER))
ODD_NAMES = [
    "-rf",
    ".",
    "..",
    "a/b",
    'it\'s "odd"',
    "naïve 猫",
    " ",
    "a.b[0]",
    "{x}",
    "%s",
    "\\",
    "$(x)",
]


def of(**sections: Any) -> Checked:
    return check({"version": 1, **sections})


def only_error(checked: Checked) -> tuple[str, str]:
    """Return path and rule of the one error that there is."""
    assert checked.settings is None
    (error,) = checked.errors
    assert error.rule.startswith("must ")
    assert not error.rule.endswith(".")
    return error.path, error.rule


def test_nothing_but_the_version_means_the_defaults() -> None:
    checked = of()
    assert checked.settings == Settings()
    assert checked.document == {"version": 1}
    assert not checked.errors


def test_the_defaults_are_right_themselves() -> None:
    defaults = json.loads(json.dumps(msgspec.to_builtins(Settings())))
    assert of(**defaults).settings == Settings()


def test_all_mistakes_are_told_at_once() -> None:
    checked = of(
        store={"path": "backups"},
        schedules=[
            {"name": "a", "when": "@daily", "vms": "all"},
            {"name": "a", "kind": "copy"},
            7,
        ],
        vms={"groups": {"": ["x"], "g": [1]}, "ignored": None},
        backup={"limit": "50", "parallel": 5, "compress": "yes"},
        hooks={"before": {"argv": ["sh", 3], "timeout": 0}},
        space={"warn_free": "lots", "stop_free": "100 %"},
        per_vm={"Windows 11": {"backup": {"longest": 1.5}}},
    )
    assert [error.path for error in checked.errors] == [
        "store.path",
        "schedules[0].vms",
        "schedules[1].kind",
        "schedules[1].when",
        "schedules[2]",
        "schedules[1].name",
        'vms.groups[""]',
        "vms.groups.g[0]",
        "vms.ignored",
        "backup.limit",
        "backup.parallel",
        "backup.compress",
        "hooks.before.argv[1]",
        "hooks.before.argv[0]",
        "hooks.before.timeout",
        "space.warn_free",
        "space.stop_free",
        'per_vm["Windows 11"].backup.longest',
    ]
    assert checked.settings is None
    assert checked.document == {}


def test_an_error_says_path_value_rule_and_way_out() -> None:
    (error,) = of(backup={"parallel": 9}).errors
    assert (error.path, error.value) == ("backup.parallel", "9")
    assert error.rule == "must be a whole number from 1 to 4"
    assert error.hint == "For example 2. Left out, it is 1."
    assert str(error) == (
        "backup.parallel: 9 must be a whole number from 1 to 4. For example 2. Left out, it is 1."
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "rule"),
    [
        ("backup", "compress", 1, "true or false"),
        ("backup", "compress", "true", "true or false"),
        ("backup", "compress", None, "true or false"),
        ("backup", "parallel", 0, "from 1 to 4"),
        ("backup", "parallel", 5, "from 1 to 4"),
        ("backup", "parallel", True, "whole number"),
        ("backup", "parallel", "2", "whole number"),
        ("backup", "parallel", 1.5, "whole number"),
        ("backup", "parallel", 1e300, "whole number"),
        ("backup", "limit", "50", "at least 64 KiB"),
        ("backup", "limit", 65535, "at least 64 KiB"),
        ("backup", "limit", -1, "number of bytes"),
        ("backup", "limit", "-1", "number of bytes"),
        ("backup", "limit", "fast", "number of bytes"),
        ("backup", "limit", "", "number of bytes"),
        ("backup", "limit", "9" * 400, "number of bytes"),
        ("backup", "limit", "1000 TiB", "number of bytes"),
        ("backup", "reread_runs", 10_001, "from 0 to 10000"),
        ("backup", "longest", 241, "from 0 to 240"),
        ("backup", "longest", -1, "from 0 to 240"),
        ("space", "warn_free", "100 %", "a part such as"),
        ("space", "warn_free", "-1 %", "a part such as"),
        ("space", "warn_free", -1, "a part such as"),
        ("space", "warn_free", True, "a part such as"),
        ("space", "warn_free", None, "a part such as"),
        ("space", "stop_free", "6 %", "not be more than `warn_free`"),
        ("space", "stop_free", ["1 %"], "a part such as"),
        ("waits", "parity", "yes", 'one of "ignore", "wait"'),
        ("waits", "mover", True, "one of"),
        ("log", "level", "INFO", "one of"),
        ("log", "size", "1 KiB", "from 64 KiB to 1.0 GiB"),
        ("log", "size", 1 << 31, "from 64 KiB"),
        ("log", "files", 0, "from 2 to 100"),
        ("log", "job_days", 0, "from 1 to 3650"),
        ("vms", "mode", "none", 'one of "all", "chosen"'),
        ("vms", "ignored", "x", "a list"),
        ("vms", "ignored", {"x": 1}, "a list"),
        ("vms", "include_new", "no", "true or false"),
        ("vms", "groups", [], "a table"),
        ("store", "id", 7, "a text of at most 64"),
    ],
)
def test_what_is_refused(section: str, key: str, value: Any, rule: str) -> None:
    path, told = only_error(of(**{section: {key: value}}))
    assert path == f"{section}.{key}"
    assert rule.replace("1.0 GiB", "1 GiB") in told


@pytest.mark.parametrize(
    ("section", "key", "value", "stored"),
    [
        ("backup", "limit", "50 MiB", 50 << 20),
        ("backup", "limit", "50M/s", 50 << 20),
        ("backup", "limit", "1.5 gib", 3 << 29),
        ("backup", "limit", "65536", 65536),
        ("backup", "limit", 0, 0),
        ("backup", "limit", "0", 0),
        ("backup", "parallel", 2.0, 2),
        ("log", "size", " 1 MiB ", 1 << 20),
        ("space", "warn_free", "10%", "10 %"),
        ("space", "warn_free", " 12.5 % ", "12.5 %"),
        ("space", "warn_free", "50 GiB", 50 << 30),
        ("space", "warn_free", 0, 0),
        ("space", "stop_free", "5 %", "5 %"),
        ("space", "stop_free", "900 GiB", 900 << 30),  # more or less than 5 %: it depends
        ("store", "path", "//mnt/user/./backups/vms/", "/mnt/user/backups/vms"),
        ("store", "path", "", ""),
    ],
)
def test_what_is_taken_and_how_it_is_kept(section: str, key: str, value: Any, stored: Any) -> None:
    checked = of(**{section: {key: value}})
    assert not checked.errors
    assert checked.document == {"version": 1, section: {key: stored}}
    assert getattr(getattr(checked.settings, section), key) == stored


def test_no_warning_at_all_may_go_with_a_stop() -> None:
    assert of(space={"warn_free": "0 %", "stop_free": "5 %"}).settings
    assert of(space={"warn_free": 0, "stop_free": "5 GiB"}).settings
    path, _ = only_error(of(space={"warn_free": "5 GiB", "stop_free": "6 GiB"}))
    assert path == "space.stop_free"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("backups", "whole path"),
        ("./x", "whole path"),
        (" /mnt/x", "whole path"),
        ("~/x", "whole path"),
        ("/", "not the whole system"),
        ("///", "not the whole system"),
        ("/.", "not the whole system"),
        ("/mnt/../boot", '".."'),
        ("/mnt/x/..", '".."'),
        ("/boot", "not lie in /boot"),
        ("//boot//x/", "not lie in /boot"),
        ("/./boot/x", "not lie in /boot"),
        ("/proc/1", "not lie in /proc"),
        ("/sys", "not lie in /sys"),
        ("/dev/shm", "not lie in /dev"),
        ("/run/x", "not lie in /run"),
        ("/var/run/x", "not lie in /var/run"),
        ("/mnt/a\0b", "control characters"),
        ("/mnt/a\nb", "control characters"),
        ("/mnt/" + "ü" * 600, "at most 1024 bytes"),
        (7, "whole path"),
        (None, "whole path"),
        (["/mnt"], "whole path"),
    ],
)
def test_folders_that_cannot_hold_backups(path: Any, rule: str) -> None:
    where, told = only_error(of(store={"path": path}))
    assert where == "store.path"
    assert rule in told


@pytest.mark.parametrize(
    "path", ["/mnt/user/backups", "/bootleg", "/mnt/boot", "/tmp/x", "/a b/-x/…", "/devices"]
)
def test_folders_that_may_hold_backups(path: str) -> None:
    assert of(store={"path": path}).document["store"] == {"path": path}


@pytest.mark.parametrize(
    ("argv", "where", "rule"),
    [
        (["sh"], "[0]", "whole path of a program"),
        ([""], "[0]", "whole path of a program"),
        (["/bin/true", "a\0b"], "[1]", "NUL"),
        (["/bin/true", 7], "[1]", "a text"),
        (["/bin/true", None], "[1]", "a text"),
        (["/bin/true", "x" * 4097], "[1]", "at most 4096"),
        (["/bin/true"] * 65, "", "at most 64 entries"),
        ("/bin/true", "", "a list of a program"),
        ({"0": "/bin/true"}, "", "a list of a program"),
    ],
)
def test_commands_that_are_refused(argv: Any, where: str, rule: str) -> None:
    path, told = only_error(of(hooks={"after": {"argv": argv}}))
    assert path == f"hooks.after.argv{where}"
    assert rule in told


def test_arguments_are_data() -> None:
    argv = ["/a b/x", "", "-x", "$(rm)", "ü\n猫", "; true"]
    settings = of(hooks={"before": {"argv": argv}}).settings
    assert settings is not None
    assert settings.hooks.before.argv == tuple(argv)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_data(name: str) -> None:
    checked = of(
        vms={"ignored": [name], "chosen": [name], "groups": {name: [name]}},
        schedules=[{"name": name, "when": "@daily", "vms": [name]}],
        per_vm={name: {"backup": {"compress": True}}},
    )
    assert not checked.errors
    assert checked.settings is not None
    assert checked.settings.vms.groups == {name: (name,)}
    assert name in checked.settings.per_vm


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 256, 7, None])
def test_what_is_no_name(name: Any) -> None:
    path, _ = only_error(of(vms={"ignored": [name]}))
    assert path == "vms.ignored[0]"


def test_a_name_is_wrong_where_it_is_in_the_list() -> None:
    path, rule = only_error(of(vms={"seen": ["x", 7]}))
    assert path == "vms.seen[1]"
    assert "a name" in rule


def test_values_are_cut_where_they_are_long() -> None:
    (error,) = of(backup={"compress": "x" * 5000}).errors
    assert len(error.value) == 80
    assert error.value.endswith("…")


def test_a_key_that_is_odd_is_quoted_in_paths() -> None:
    path, _ = only_error(of(per_vm={'a"b.c[0]': {"backup": {"longest": "x"}}}))
    assert path == 'per_vm["a\\"b.c[0]"].backup.longest'


@pytest.mark.parametrize("when", ["", "daily", "61 * * * *", "0 2 * *", 7, None, ["@daily"]])
def test_times_that_cron_does_not_know(when: Any) -> None:
    (error,) = of(schedules=[{"name": "x", "when": when}]).errors
    assert error.path == "schedules[0].when"
    assert error.rule
    assert error.hint


def test_spaces_in_times_do_not_matter() -> None:
    checked = of(schedules=[{"name": "x", "when": " 0  2 * *\t* "}])
    assert checked.document["schedules"] == [{"name": "x", "when": "0 2 * * *"}]


def test_a_schedule_needs_a_name_and_a_time() -> None:
    checked = of(schedules=[{}])
    assert [e.path for e in checked.errors] == ["schedules[0].name", "schedules[0].when"]
    assert all(e.value == "" and e.rule.startswith("must be there") for e in checked.errors)


def test_lists_and_tables_have_an_end() -> None:
    many = [str(i) for i in range(1001)]
    checked = of(vms={"chosen": many, "groups": {name: [] for name in many}})
    assert [e.path for e in checked.errors] == ["vms.chosen", "vms.groups"]
    assert all("at most 1000" in e.rule for e in checked.errors)


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ([], "must be an object"),
        (None, "must be an object"),
        ("{}", "must be an object"),
        ({}, "must be there: 1"),
        ({"version": 2}, "must be 1"),
        ({"version": True}, "must be 1"),
        ({"version": "1"}, "must be 1"),
        ({"version": 1, "x": float("nan")}, "JSON cannot say"),
        ({"version": 1, "x": ["\ud800"]}, "do not exist"),
        ({"version": 1, "\udfff": 1}, "do not exist"),
        ({"version": 1, 7: 1}, "JSON|texts as keys"),
        ({"version": 1, "x": {1, 2}}, "no set"),
        ({"version": 1, "x": b"y"}, "no bytes"),
        ({"version": 1, "x": "y" * (1 << 20)}, "1 MiB"),
        ({"version": 1, "x": 10**5000}, "thousands of digits"),
    ],
)
def test_what_is_no_settings_at_all(raw: Any, rule: str) -> None:
    _, told = only_error(check(raw))
    assert any(one in told for one in rule.split("|"))


def test_nesting_has_an_end() -> None:
    raw: Any = {"version": 1}
    for _ in range(5000):
        raw = {"version": 1, "x": [raw]}
    assert "nested" in only_error(check(raw))[1]


def test_what_is_not_known_is_kept_and_told() -> None:
    raw = {
        "version": 1,
        "backups": {"a": [1, {"b": None}]},
        "backup": {"compres": True, "limit": "1 MiB"},
        "schedules": [{"name": "x", "when": "@daily", "colour": 3}],
        "per_vm": {"a b": {"backup": {"parallel": 2}}},
    }
    checked = check(raw)
    assert checked.document == {**raw, "backup": {"compres": True, "limit": 1 << 20}}
    told = {note.path: note.text for note in checked.notes if "does not know" in note.text}
    assert set(told) == {
        "backups",
        "backup.compres",
        "schedules[0].colour",
        'per_vm["a b"].backup.parallel',
    }
    assert "Did you mean `backup`?" in told["backups"]
    assert "Did you mean `compress`?" in told["backup.compres"]
    assert "Did you mean" not in told["schedules[0].colour"]


def test_what_is_given_is_not_changed() -> None:
    raw = {"version": 1, "backup": {"limit": "1 MiB"}, "vms": {"ignored": ["x"]}}
    before = json.dumps(raw)
    check(raw, KNOWN)
    assert json.dumps(raw) == before


def notes_of(known: Context | None, **sections: Any) -> dict[str, str]:
    sections = {"store": {"path": "/mnt/x"}, **sections}
    checked = check({"version": 1, **sections}, known)
    assert not checked.errors
    return {note.path: note.text for note in checked.notes}


def test_settings_that_are_as_they_should_be_have_no_notes() -> None:
    assert notes_of(KNOWN) == {}


def test_of_all_vms_those_that_are_not_backed_up_are_no_surprise() -> None:
    assert notes_of(KNOWN, vms={"ignored": ["router"]}) == {}


def test_a_schedule_for_nobody_is_no_surprise_if_it_is_off_or_there_are_no_vms() -> None:
    off = {"name": "off", "when": "@daily", "vms": ["g"], "enabled": False}
    daily = {"name": "daily", "when": "@daily"}
    assert notes_of(KNOWN, schedules=[daily, off], vms={"groups": {"g": []}}) == {}
    assert notes_of(Context(()), schedules=[daily]) == {}


def test_names_that_nobody_has_are_notes() -> None:
    told = notes_of(
        KNOWN,
        vms={"ignored": ["gone"], "chosen": ["also gone", "g"], "groups": {"g": ["router", "x"]}},
        schedules=[{"name": "a", "when": "@daily", "vms": ["g", "y", WINDOWS.uuid.upper()]}],
        per_vm={"z": {}, "router": {}},
    )
    assert set(told) == {
        "vms.ignored[0]",
        "vms.chosen[0]",
        "vms.groups.g[1]",
        "schedules[0].vms[1]",
        "per_vm.z",
    }
    assert told["vms.ignored[0]"] == 'There is no VM or group "gone" now.'


def test_nothing_is_said_about_names_while_the_vms_are_not_known() -> None:
    assert notes_of(None, vms={"ignored": ["gone"]}, per_vm={"z": {}}) == {}


@pytest.mark.parametrize(
    ("sections", "path", "words"),
    [
        ({"store": {}}, "store.path", "nothing is backed up"),
        ({"vms": {"mode": "chosen"}}, "vms.chosen", "No VM is chosen"),
        ({"schedules": []}, "schedules", "by hand only"),
        (
            {"schedules": [{"name": "a", "when": "@daily", "enabled": False}]},
            "schedules",
            "by hand only",
        ),
        (
            {"schedules": [{"name": "a", "when": "@daily", "kind": "verify"}]},
            "schedules",
            "by hand only",
        ),
        ({"schedules": [{"name": "a", "when": "* 2 * * *"}]}, "schedules[0].when", "every minute"),
        ({"vms": {"groups": {"router": []}}}, "vms.groups.router", "A VM has this name"),
        ({"per_vm": {"router": {}, ROUTER.uuid: {}}}, "per_vm.router", "the UUID counts"),
        (
            {
                "vms": {"ignored": ["router"]},
                "schedules": [{"name": "a", "when": "@daily", "vms": ["router", "Windows 11"]}],
            },
            "schedules[0].vms",
            'The VM "router" is left out: it is among the ignored VMs.',
        ),
        ({"vms": {"ignored": ["router", "Windows 11"]}}, "schedules[0]", "no VM that it is for"),
    ],
)
def test_what_may_not_be_meant_is_a_note(sections: Any, path: str, words: str) -> None:
    assert words in notes_of(KNOWN, **sections)[path]


# -- what users are told -------------------------------------------------------------------


@pytest.mark.parametrize("value", ["8:00", "24:00", "08:60", "0800", "", "٠٨:٠٠", 8, None])
def test_what_is_no_time_of_day(value: Any) -> None:
    path, rule = only_error(of(notify={"daily_at": value}))
    assert (path, 'from "00:00" to "23:59"' in rule) == ("notify.daily_at", True)


@pytest.mark.parametrize("key", ["webhook", "health"])
@pytest.mark.parametrize(
    "value",
    ["x", "ftp://x/y", "http://", "https://x y/", "https://x/\n", "http://[x/", "http://x:99999/"],
)
def test_what_is_no_web_address(key: str, value: str) -> None:
    path, rule = only_error(of(notify={key: value}))
    assert path == f"notify.{key}"
    assert rule == "must be a web address, beginning with https:// or http://"


@pytest.mark.parametrize("value", ["https://x/private y", f"https://x/private{'y' * 2000}"])
def test_a_web_address_that_is_none_is_not_repeated(value: str) -> None:
    """What is said of settings is kept, logged and sent to web hooks."""
    checked = of(notify={"webhook": value})
    assert [error.path for error in checked.errors] == ["notify.webhook"]
    assert "private" not in str(checked.errors[0])


@pytest.mark.parametrize(
    "value", ["", "http://nas:8080/x", "https://u:p@[fd00::1]/ü?a=b#c", "HTTPS://X.example"]
)
def test_web_addresses(value: str) -> None:
    checked = of(notify={"webhook": value, "health": value})
    assert checked.settings is not None
    assert checked.settings.notify.webhook == value
