"""Unraid's notifications: through a stand-in for its script, and through the script itself."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import notify_stand_in as stand_in
from tests.support.world import environment
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.notify.unraid import UnraidChannel
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.domain.errors import NotifyFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.message import Message, Policy, digest, single
from vm_babysitter.engine.telling import Teller

NOW = datetime.now(UTC)
ODD = 'it\'s a "VM" <b>&amp;</b> $(touch x) `y` = ; 猫 \\n \n -e x'
WEBGUI = os.environ.get("VMB_WEBGUI", "")
"""A clone of unraid/webgui."""


def message(subject: str = "Backup of router failed", **changes: object) -> Message:
    event = Event(NOW, "x", Severity.ALERT, subject, **changes)  # type: ignore[arg-type]
    return single(event, Policy())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "host"
    made.mkdir()
    return made


def test_a_message_arrives_with_all_it_says(root: Path) -> None:
    stand_in.install(root)
    channel = UnraidChannel(root)
    sent = message(text="The disk is full.\nFree some space.", vm_name="router")
    assert not channel.was_sent(sent)
    channel.send(sent, 30)
    (found,) = stand_in.archived(root)
    assert found["event"] == "VM Babysitter"
    assert found["subject"] == "Backup of router failed"
    assert found["description"] == "The disk is full. Free some space."
    assert found["importance"] == "alert"
    assert found["message"].startswith("It happened at")
    (shown,) = stand_in.unread(root)
    assert shown["link"] == "/Settings/VMBabysitter"
    assert channel.was_sent(sent)
    assert not channel.was_sent(message())


@pytest.mark.parametrize("severity", Severity)
def test_the_importance_is_one_that_is_shown(root: Path, severity: Severity) -> None:
    stand_in.install(root)
    UnraidChannel(root).send(single(Event(NOW, "x", severity, "a"), Policy()), 30)
    assert [each["importance"] for each in stand_in.unread(root)] == [str(severity)]


def test_two_messages_never_come_in_the_same_second(root: Path) -> None:
    """The second one would be dropped; also if two processes send them."""
    stand_in.install(root)
    channel = UnraidChannel(root)
    for sender in (channel, channel, UnraidChannel(root)):
        sender.send(message(f"{time.monotonic()}"), 30)
    seconds = [each["timestamp"] for each in stand_in.archived(root)]
    assert len(set(seconds)) == 3


def test_odd_texts_arrive_as_one_line_without_html(root: Path) -> None:
    stand_in.install(root)
    sent = message(ODD, text=ODD, vm_name=ODD)
    UnraidChannel(root).send(sent, 30)
    (found,) = stand_in.archived(root)
    assert "(b)&amp –(/b) $(touch x) `y` :  – 猫 /n -e x" in found["subject"]
    assert not {"<", '"', "\\"} & set(found["subject"] + found["description"])
    assert UnraidChannel(root).was_sent(sent)
    assert list(root.glob("x")) == []


def test_nothing_of_what_is_shown_is_cut_by_those_who_read_it(root: Path) -> None:
    """Before 7.2 the script writes no quotes: `notify get` ends at =, Unraid's API at ; and #."""
    stand_in.install(root)
    UnraidChannel(root).send(message("VM web #2; a=b", text="Full; x=y #1.\nDo so."), 30)
    (found,) = stand_in.unread(root)
    assert found["subject"] == "VM web \uff032 – a:b"
    assert found["description"] == "Full – x:y \uff031. Do so."


def test_a_subject_that_begins_like_an_option_is_none(root: Path) -> None:
    stand_in.install(root)
    UnraidChannel(root).send(message("-x", text="-t"), 30)
    (found,) = stand_in.archived(root)
    assert (found["subject"], found["description"]) == ("-x", "-t.")


def test_the_greatest_message_arrives(root: Path) -> None:
    stand_in.install(root)
    events = [Event(NOW, "x", Severity.ALERT, "s" * 400, "t" * 9000) for _ in range(500)]
    sent = digest(events, Policy())
    UnraidChannel(root).send(sent, 30)
    assert UnraidChannel(root).was_sent(sent)


def test_where_there_is_no_script_there_is_no_such_channel(root: Path) -> None:
    assert "this host has no" in UnraidChannel(root).missing()
    stand_in.install(root)
    assert UnraidChannel(root).missing() == ""


def test_the_folder_of_the_settings_is_looked_into(root: Path) -> None:
    stand_in.install(root)
    channel, sent = UnraidChannel(root), message()
    channel.send(sent, 30)
    (root / "mnt").mkdir()
    (root / "tmp/notifications").rename(root / "mnt/told")
    assert not channel.was_sent(sent)
    settings = root / "boot/config/plugins/dynamix/dynamix.cfg"
    settings.parent.mkdir(parents=True)
    settings.write_text('[display]\npath="/nowhere"\n[notify]\npath="/mnt/told"\n')
    assert channel.was_sent(sent)


# -- scripts that fail ---------------------------------------------------------------------


def test_a_script_that_fails_is_a_failure(root: Path) -> None:
    stand_in.install(root, "echo no paper >&2; exit 3")
    with pytest.raises(NotifyFailed, match="status 3: no paper"):
        UnraidChannel(root).send(message(), 30)


def test_a_script_that_cannot_be_run_is_a_failure(root: Path) -> None:
    script = stand_in.install(root)
    script.chmod(0o644)
    with pytest.raises(NotifyFailed):
        UnraidChannel(root).send(message(), 30)


def test_a_script_that_hangs_is_ended_with_all_that_it_started(root: Path) -> None:
    child = root / "child"
    stand_in.install(root, f"sleep 600 & echo $! > {shlex.quote(str(child))}; wait")
    begun = time.monotonic()
    with pytest.raises(NotifyFailed, match="within 1 seconds"):
        UnraidChannel(root).send(message(), 1.0)
    assert time.monotonic() - begun < 20
    pid = int(child.read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_agent_that_hangs_after_the_message_was_shown_has_it_not_sent_again(
    root: Path, tmp_path: Path
) -> None:
    stand_in.install(root)
    agent = root / "agent"
    agent.write_text("#!/bin/sh\nsleep 600\n")
    agent.chmod(0o755)
    journal = SqliteJournal(tmp_path / "journal.sqlite", SystemClock())
    teller = Teller("unraid", lambda: UnraidChannel(root), journal, SystemClock(), Policy)
    teller.within = 3.0
    teller.round()
    journal.event(Event(datetime.now(UTC), "x", Severity.ALERT, "a"))
    teller.round()
    teller.round()
    assert (len(stand_in.archived(root)), teller.trouble) == (1, "")
    journal.close()


# -- kill -9 between sending and noting ----------------------------------------------------

SENDER = """
import sys
from pathlib import Path
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.notify.unraid import UnraidChannel
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.message import Policy
from vm_babysitter.engine.telling import Teller
root, state, happens = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
clock = SystemClock()
journal = SqliteJournal(state, clock)
teller = Teller("unraid", lambda: UnraidChannel(root), journal, clock, Policy)
teller.round()
for subject in happens:
    journal.event(Event(clock.now(), "x", Severity.WARNING, subject))
teller.round()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 5])
def test_a_process_that_is_killed_while_it_tells_has_it_told_exactly_once(
    root: Path, tmp_path: Path, moment: str, number: int
) -> None:
    """``before`` the script has kept the message, and ``after``: the script lives on in both."""
    pause = 'touch "$0.began"; sleep 1.5' if moment == "before" else ""
    stand_in.install(root, pause)
    if moment == "after":
        agent = root / "agent"
        agent.write_text(
            f"#!/bin/sh\ntouch {shlex.quote(f'{stand_in_script(root)}.began')}\nsleep 1\n"
        )
        agent.chmod(0o755)
    began = Path(f"{stand_in_script(root)}.began")
    subjects = [f"event {n}" for n in range(number)]
    state = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", SENDER, str(root), str(state)]
    process = subprocess.Popen([*command, *subjects], env=environment())
    deadline = time.monotonic() + 60
    while not began.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2.5)  # a daemon gathers events for that long, and begins no sooner
    for _ in range(2):
        subprocess.run(command, env=environment(), check=True, timeout=60)
    told = stand_in.archived(root)
    assert len(told) == 1
    for subject in subjects:
        assert sum(subject in f"{each['subject']} {each['message']}" for each in told) == 1


def stand_in_script(root: Path) -> Path:
    return root / "usr/local/emhttp/webGui/scripts/notify"


# -- the real script -----------------------------------------------------------------------


@pytest.fixture
def real(root: Path) -> Path:
    """The script of a clone of unraid/webgui, with folders of its own, run by PHP."""
    php = shutil.which("php")
    if not WEBGUI or php is None:
        pytest.skip("VMB_WEBGUI names no clone of unraid/webgui, or there is no PHP")
    emhttp = Path(WEBGUI) / "emhttp"
    docroot = root / "usr/local/emhttp"
    docroot.mkdir(parents=True)
    (docroot / "plugins").symlink_to(emhttp / "plugins")
    scripts = docroot / "webGui/scripts"
    scripts.mkdir(parents=True)
    for name in ("unread", "archive"):
        (root / "tmp/notifications" / name).mkdir(parents=True)
    # Its paths are those of the host: they are moved below the root, in a copy for this test.
    dynamix = emhttp / "plugins/dynamix"
    include = docroot / "webGui/include"
    include.mkdir()
    for path in (dynamix / "include").glob("*.php"):
        shutil.copy(path, include)
    text = (dynamix / "scripts/notify").read_text()
    text = text.replace("'/tmp/notifications'", f"'{root}/tmp/notifications'")
    text = text.replace("/usr/local/emhttp", str(docroot))
    (scripts / "real").write_text(text)
    for path in include.glob("*.php"):
        words = path.read_text(errors="replace").replace("/usr/local/emhttp", str(docroot))
        path.write_text(words.replace("/boot/config", f"{root}/boot/config"))
    settings = root / "boot/config/plugins/dynamix/dynamix.cfg"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f'[notify]\npath="{root}/tmp/notifications"\nnormal="1"\nwarning="1"\nalert="1"\n'
    )
    script = scripts / "notify"
    script.write_text(
        f'#!/bin/bash\nexec env -i PATH="$PATH" {php} -d short_open_tag=1 -q {scripts}/real "$@"\n'
    )
    script.chmod(0o755)
    return root


def in_its_root(root: Path) -> UnraidChannel:
    """The channel, which looks for the folder that the settings name below the root."""
    settings = root / "boot/config/plugins/dynamix/dynamix.cfg"
    assert str(root) in settings.read_text()
    (root / str(root).lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / str(root).lstrip("/")).symlink_to(root)
    return UnraidChannel(root)


@pytest.mark.parametrize("text", ["The disk is full.\nFree some space.", ODD], ids=["plain", "odd"])
def test_the_real_script_takes_what_we_say_and_keeps_it(real: Path, text: str) -> None:
    channel = in_its_root(real)
    for number in range(2):
        sent = message(f"Backup {number} of router failed", text=text)
        channel.send(sent, 30)
        assert channel.was_sent(sent)
    kept, shown = stand_in.archived(real), stand_in.unread(real)
    assert [each["subject"] for each in kept] == [
        "Backup 0 of router failed",
        "Backup 1 of router failed",
    ]
    assert {each["importance"] for each in [*kept, *shown]} == {"alert"}
    assert [each["link"] for each in shown] == ["/Settings/VMBabysitter"] * 2


def test_the_stand_in_keeps_what_the_real_script_keeps(real: Path, tmp_path: Path) -> None:
    """Also that it drops the second one of a second, and what an importance of no sense does."""
    other = tmp_path / "other"
    other.mkdir()
    stand_in.install(other)
    lines = (
        ["-e", "a b/c", "-s", "s", "-d", "d", "-i", "warning", "-m", "x\\ny", "-l", "/l"],
        ["-e", "importance", "-s", "s", "-i", "urgent"],
        ["-x", "-e", "ticket", "-s", "one"],
        ["-x", "-e", "ticket", "-s", "two"],
        ["-b", "-e", "quiet", "-m", "m"],
        ["-e", "last", "-e", "\u732b", "-s", "-d", "-d", "-s"],
    )
    for root in (real, other):
        for line in lines:
            script = stand_in_script(root)
            subprocess.run([script, *line], check=True, timeout=30)
    for read in (stand_in.archived, stand_in.unread):
        found = [[{**each, "timestamp": ""} for each in read(root)] for root in (real, other)]
        assert found[0] == found[1]
