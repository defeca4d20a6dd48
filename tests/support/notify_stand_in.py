"""Stands in for Unraid's script ``notify``, with its rules; installed by ``install``.

Options may come in any order, each once: PHP makes a list of one that comes twice, which the script
writes as the word Array. What is no option ends them. An importance
that is none of the three reaches nobody but the archive. A file of the same event and second makes
it do nothing. Its exit status is 0 whatever it did.
"""

import getopt
import os
import shlex
import stat
import sys
import time
from pathlib import Path

_SCRIPT = "usr/local/emhttp/webGui/scripts/notify"
_DROPPED = "?[]/\\=<>:;,'\"&$#*()|~`!{}"
_NAMES = {"-e": "event", "-s": "subject", "-d": "description", "-i": "importance"}


def install(root: Path, before: str = "") -> Path:
    """Put it where Unraid has its script, below ``root``; ``before`` is shell that runs first."""
    script = root / _SCRIPT
    script.parent.mkdir(parents=True)
    for name in ("unread", "archive"):
        (root / "tmp/notifications" / name).mkdir(parents=True)
    words = shlex.join([sys.executable, "-S", __file__, str(root)])
    script.write_text(f'#!/bin/bash\n{before}\nexec {words} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def archived(root: Path) -> list[dict[str, str]]:
    """Return what is in the archive, in order."""
    return _read(root / "tmp/notifications/archive")


def unread(root: Path) -> list[dict[str, str]]:
    """Return what the browser shows."""
    return _read(root / "tmp/notifications/unread")


def _read(folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(folder.glob("*.notify")):
        pairs = (line.partition("=") for line in path.read_text().splitlines())
        found.append({key: value.strip('"') for key, _, value in pairs})
    return found


def _name(text: str) -> str:
    kept = "".join(c for c in text if c not in _DROPPED).strip()
    kept = "".join(c for c in kept if c.isascii() and " " <= c <= "z")
    return kept.replace(" ", "_").replace("-", "_").strip()


def main(root: Path, arguments: list[str]) -> None:
    """Do what the script does."""
    if not arguments or not arguments[0].startswith("-"):
        return
    try:
        options, _ = getopt.getopt(arguments, "l:e:s:d:i:m:r:xtb")
    except getopt.GetoptError:
        return
    names = [name for name, _ in options]
    given = {name: "Array" if names.count(name) > 1 else value for name, value in options}
    now = int(time.time())
    fields = {
        "timestamp": str(now),
        "event": "Unraid Status",
        "subject": "Notification",
        "description": "No description",
        "importance": "normal",
    }
    fields |= {_NAMES[key]: value for key, value in given.items() if key in _NAMES}
    folder = root / "tmp/notifications"
    ticket = "ticket" if "-x" in given else str(now)
    name = _name(f"{fields['event']}-{ticket}.notify")
    if (folder / "archive" / name).exists():
        return
    message = given.get("-m", "").replace("\\n", "<br>")
    kept = {**fields, **({"message": message} if message else {})}
    _write(folder / "archive" / name, kept)
    if fields["importance"] in {"normal", "warning", "alert"} and "-b" not in given:
        _write(folder / "unread" / name, {**fields, "link": given.get("-l", "")})
    agent = root / "agent"
    if os.access(agent, os.X_OK):
        os.system(shlex.quote(str(agent)))  # noqa: S605


def _write(path: Path, fields: dict[str, str]) -> None:
    path.write_text("".join(f'{key}="{value}"\n' for key, value in fields.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
