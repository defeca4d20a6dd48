"""How each part of the daemon is, from what is known: nobody is waited for."""

from collections.abc import Iterator

from vm_babysitter.service.daemon import Daemon
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.views import PartState, PartView

_SPACE = "Free some space there."
_MOUNTED = (
    "Is its disk mounted? If backups are to go to what lies there now: `vm-babysitter settings "
    "unset store.id`, then `vm-babysitter settings unset store.filesystem`."
)
_TROUBLES = {
    "store-away": (
        PartState.FAILED,
        "Backups wait: the backup folder {path} is not there.",
        _MOUNTED,
    ),
    "store-other": (
        PartState.FAILED,
        "Backups wait: another backup folder than the one that was set up lies at {path}.",
        _MOUNTED,
    ),
    "store-failed": (
        PartState.FAILED,
        "Backups wait: the backup folder {path} cannot be used.",
        "The list of events says why.",
    ),
    "store-full": (
        PartState.FAILED,
        "No backup begins: the backup folder {path} is full.",
        _SPACE,
    ),
    "store-low": (PartState.WARNING, "The backup folder {path} fills up.", _SPACE),
}
"""By the code of what was told, the worst first."""


def parts(daemon: Daemon) -> Iterator[PartView]:
    """Say how each part is."""
    problem = daemon.configuration.problem
    if problem is None:
        yield PartView("settings", PartState.OK, "The settings are in order.")
    else:
        yield PartView("settings", PartState.FAILED, problem.message, problem.hint)
    trouble = daemon.watch.now().trouble
    state = PartState.WAITS if trouble else PartState.OK
    yield PartView("libvirt", state, trouble or "libvirt answers.")
    store = _store(daemon.guard, hangs=daemon.store_watch.hangs)
    yield store
    journal = daemon.journal.trouble
    state = PartState.WARNING if journal else PartState.OK
    yield PartView("journal", state, journal or "The journal is kept.")
    for told in daemon.notifier.troubles():
        text = f"You are not told everything: {told}"
        yield PartView("notifications", PartState.WARNING, text)
    look = daemon.diagnoses.problem
    if look and not trouble and store.state is not PartState.FAILED:  # else that is why
        text = f"The backups cannot be looked at: {look}"
        yield PartView("diagnoses", PartState.WARNING, text)


def _store(guard: StoreGuard, *, hangs: bool) -> PartView:
    path = guard.path
    if path is None:
        return PartView("store", PartState.WAITS, "No backup folder is set up.")
    if hangs:
        text = f"Backups wait: the backup folder {str(path)!r} does not answer."
        return PartView("store", PartState.FAILED, text, "Is its server or disk in order?")
    told = guard.troubles()
    for code, (state, text, hint) in _TROUBLES.items():
        if code in told:
            return PartView("store", state, text.format(path=repr(str(path))), hint)
    return PartView("store", PartState.OK, f"Backups go to {str(path)!r}.")
