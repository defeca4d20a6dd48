"""A look at what the daemon needs before it starts: nothing is written, nobody waits long."""

import importlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from vm_babysitter import __version__
from vm_babysitter.adapters.store.place import filesystem_type
from vm_babysitter.adapters.unraid.places import state_folder
from vm_babysitter.domain.store_check import IN_RAM
from vm_babysitter.engine.app import ServeOptions
from vm_babysitter.lib.unixhttp import address_of
from vm_babysitter.views import PartState, PartView

_MODULES = (
    "apscheduler",
    "blake3",
    "ctypes",
    "flask",
    "libvirt",
    "lxml.etree",
    "msgspec",
    "sqlite3",
    "ssl",
    "waitress",
    "zstandard",
)
_LIBVIRT = Path("run/libvirt/libvirt-sock")
_CONFIGURATION = Path("boot/config/domain.cfg")
_PATIENCE = 2.0
"""Seconds for libvirt to take a connection."""
_AGAIN = "Install the plugin again. If that does not help, this Unraid needs another version of it."


def self_check(options: ServeOptions, root: Path = Path("/")) -> tuple[PartView, ...]:
    """Say of each thing that the daemon needs whether it is as it should be.

    ``root`` is where the host's file system begins.
    """
    return (
        _modules(),
        _libvirt(root),
        _socket_folder(options.socket),
        _state(options.state or state_folder(root), allow_ram=options.allow_ram_store),
        _settings(options.settings),
    )


def _modules() -> PartView:
    broken = list(_broken_modules())
    if broken:
        return PartView("python", PartState.FAILED, f"Python lacks {'; '.join(broken)}.", _AGAIN)
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"Python {version} has all that VM Babysitter {__version__} needs."
    return PartView("python", PartState.OK, text)


def _broken_modules() -> Iterator[str]:
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, ValueError) as error:
            yield f"{name} ({error})"


def _libvirt(root: Path) -> PartView:
    path = root / _LIBVIRT
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying, address_of(path) as where:
            trying.settimeout(_PATIENCE)
            trying.connect(where)
    except (FileNotFoundError, ConnectionRefusedError):
        if 'SERVICE="disable"' in _text(root / _CONFIGURATION):
            text = "The VM service is switched off, so no VM can be backed up."
            return PartView("libvirt", PartState.WAITS, text, "Switch it on: Settings, VM Manager.")
        text = "The VM service does not run yet; backups wait for it."
        return PartView("libvirt", PartState.WAITS, text)
    except OSError as error:
        text = f"The VM service does not answer: {_why(error)}."
        hint = "Stop and start it: Settings, VM Manager, Enable VMs."
        return PartView("libvirt", PartState.WARNING, text, hint)
    return PartView("libvirt", PartState.OK, "The VM service answers.")


def _socket_folder(path: Path) -> PartView:
    folder = _there(path.parent)
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and not _read_only(folder):
        text = f"The pages reach the daemon by {path}."
        return PartView("socket", PartState.OK, text)
    text = f"Nothing can be put into {folder}, where the pages would reach the daemon."
    return PartView("socket", PartState.FAILED, text, "Restart the server.")


def _state(folder: Path | None, *, allow_ram: bool) -> PartView:
    if folder is None:
        text = "There is no place for journal and logs: no share `system` is there."
        hint = "Start the array. If it is started, make a share that is called system."
        return PartView("state", PartState.FAILED, text, hint)
    there = folder if folder.is_dir() else folder.parent
    hint = "Is its disk mounted? Main shows it."
    if not there.is_dir():
        return PartView("state", PartState.FAILED, f"{there} is not there.", hint)
    if not allow_ram and filesystem_type(there) in IN_RAM:
        text = f"{folder}, for journal and logs, lies in RAM, so it would be lost."
        return PartView("state", PartState.FAILED, text, hint)
    if _read_only(there) or not os.access(there, os.W_OK | os.X_OK):
        text = f"Nothing can be written to {there}, where journal and logs are kept."
        return PartView("state", PartState.FAILED, text, "Look at its disk: Main, Array Devices.")
    return PartView("state", PartState.OK, f"Journal and logs are kept in {folder}.")


def _settings(path: Path) -> PartView:
    folder = _there(path.parent)
    if _read_only(folder) or not os.access(folder, os.W_OK | os.X_OK):
        text = f"Nothing can be written to {folder}: changed settings are not kept."
        hint = "The flash drive may be failing. Make a copy of it, and replace it."
        return PartView("settings", PartState.WARNING, text, hint)
    return PartView("settings", PartState.OK, f"Settings are kept in {path}.")


def _there(folder: Path) -> Path:
    """Return the nearest folder above that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _why(error: OSError) -> str:
    return error.strerror or str(error) or "it is too slow"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
