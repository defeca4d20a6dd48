"""Commands about the daemon's settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from vm_babysitter.cli.dotted import NoSuchKey, join, leaves, merged, split, value_at
from vm_babysitter.cli.dotted import with_value as changed
from vm_babysitter.cli.dotted import without as removed
from vm_babysitter.cli.failure import Failure
from vm_babysitter.cli.options import json_option
from vm_babysitter.cli.output import say
from vm_babysitter.cli.render_settings import (
    checked_text,
    notes_text,
    settings_text,
    value_text,
)
from vm_babysitter.cli.session import Session, show
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import Exit, InvalidInput
from vm_babysitter.lib.atomicfile import write_atomically
from vm_babysitter.views import SettingsView

_MOST_BYTES = 1 << 20
Document = dict[str, Any]
Change = Callable[[Document], Document]


class Key(click.ParamType[tuple[str, ...]]):
    """A dotted path; shells complete those that there are without anybody's help."""

    name = "key"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, ...]:
        """Return its parts; anything but a path is a usage error."""
        try:
            return split(value) if isinstance(value, str) else value
        except NoSuchKey:
            self.fail(f"{value!r} is no key; write for example backup.limit.", param, context)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem[str]]:
        """Return the keys that begin so."""
        del ctx, param
        keys = [join(keys) for keys, _ in leaves(_defaults())]
        found = [key for key in keys if key.startswith(incomplete)]
        return [click.shell_completion.CompletionItem(key) for key in found]


FILE = click.Path(path_type=Path, allow_dash=True)


@click.group()
def settings() -> None:
    """Show and change the daemon's settings; SETTINGS.md says what each means."""


@settings.command("show")
@json_option
@click.pass_obj
def show_all(session: Session, as_json: bool) -> None:
    """List all settings, with the defaults of those that were not set."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.settings()
    complete = merged(_defaults(), found.settings)
    show(as_json, lambda: found, lambda: _lines([settings_text(found.settings, complete)], found))


@settings.command()
@click.argument("key", type=Key())
@json_option
@click.pass_obj
def get(session: Session, key: tuple[str, ...], as_json: bool) -> None:
    """Print the value of KEY, such as backup.limit or schedules.0.when."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.settings()
    try:
        value = value_at(merged(_defaults(), found.settings), key)
    except NoSuchKey:
        session.fail(_no_such_key(key), as_json=as_json)
    show(as_json, lambda: value, lambda: value if isinstance(value, str) else value_text(value))


@settings.command("set")
@click.argument("key", type=Key())
@click.argument("value")
@json_option
@click.pass_obj
def set_value(session: Session, key: tuple[str, ...], value: str, as_json: bool) -> None:
    """Set KEY to VALUE: JSON, or plain text."""
    new = _parsed(value)
    _save(session, lambda old: changed(_with_lists(old, key), key, new), key, as_json=as_json)


@settings.command()
@click.argument("key", type=Key())
@json_option
@click.pass_obj
def unset(session: Session, key: tuple[str, ...], as_json: bool) -> None:
    """Have KEY as it is by default."""
    _save(session, lambda document: _unset(document, key), key, as_json=as_json)


@settings.command()
@click.argument("file", type=FILE)
@json_option
@click.pass_obj
def check(session: Session, file: Path, as_json: bool) -> None:
    """Say what is wrong with the settings in FILE (-: standard input), all of it; save nothing."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.check_settings(_read(file))
    show(as_json, lambda: found, lambda: checked_text(found))
    if found.errors:
        raise SystemExit(int(Exit.USAGE))


@settings.command("export")
@click.argument("file", type=FILE, required=False)
@json_option
@click.pass_obj
def export_all(session: Session, file: Path | None, as_json: bool) -> None:
    """Write the settings to FILE, or to standard output, for `import` here or elsewhere."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.settings()
        text = json.dumps(found.settings, indent=2, ensure_ascii=False)
        if file is None or str(file) == "-":
            say(text)
            return
        write_atomically(file, f"{text}\n".encode())
    show(as_json, lambda: found, lambda: f"Exported to {click.format_filename(file)}.")


@settings.command("import")
@click.argument("file", type=FILE)
@json_option
@click.pass_obj
def import_all(session: Session, file: Path, as_json: bool) -> None:
    """Take the settings in FILE (-: standard input), all of them, in place of those there are.

    If one is wrong nothing is changed. Settings that cannot be read any more are kept beside the
    new ones.
    """
    with session.daemon(as_json=as_json) as daemon:
        # None of the old ones is needed: it is the way out where they are wrong or damaged.
        saved = daemon.save_settings(_read(file), None)
    show(as_json, lambda: saved, lambda: _lines(["Imported."], saved))


def _save(session: Session, change: Change, key: tuple[str, ...], *, as_json: bool) -> None:
    with session.daemon(as_json=as_json) as daemon:
        old = daemon.settings()
        try:
            new = change(old.settings)
        except NoSuchKey:
            session.fail(_no_such_key(key), as_json=as_json)
        saved = daemon.save_settings(new, old.tag)
    value = value_text(_value_or_none(merged(_defaults(), saved.settings), key))
    show(as_json, lambda: saved, lambda: _lines([f"{join(key)} = {value}"], saved))


def _with_lists(document: Document, key: tuple[str, ...]) -> Document:
    """Return a document with the lists of defaults on the way to a key: an entry is changed."""
    for length in range(1, len(key)):
        default = _value_or_none(_defaults(), key[:length])
        if isinstance(default, list) and not _is_there(document, key[:length]):
            document = changed(document, key[:length], default)
    return document


def _unset(document: Document, key: tuple[str, ...]) -> Document:
    document = _with_lists(document, key)
    if _is_there(document, key):
        found: Document = removed(document, key)
        return found
    value_at(_defaults(), key)  # it has its default already, or there is no such key
    return document


def _lines(lines: list[str], view: SettingsView) -> str:
    return "\n".join([*lines, *notes_text(view.notes)])


def _defaults() -> Document:
    return dict(msgspec.json.decode(msgspec.json.encode(Settings())))


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_there(document: Document, key: tuple[str, ...]) -> bool:
    try:
        value_at(document, key)
    except NoSuchKey:
        return False
    return True


def _value_or_none(document: Document, key: tuple[str, ...]) -> Any:
    return value_at(document, key) if _is_there(document, key) else None


def _no_such_key(key: tuple[str, ...]) -> Failure:
    hint = "`vm-babysitter settings show` lists those there are."
    code = int(Exit.NOT_FOUND)
    return Failure("key-not-found", f"There is no key {join(key)!r}.", hint, code)


def _read(file: Path) -> Document:
    """Read settings. Raises InvalidInput, OSError."""
    with click.open_file(str(file), "rb") as opened:
        content: bytes = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InvalidInput("FILE", str(file), "is larger than 1 MiB", "Is this another file?")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("FILE", str(file), f"is no JSON of settings: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput("FILE", str(file), "is no JSON object of settings")
    return found
