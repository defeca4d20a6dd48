"""The autostart as a part of the daemon: what the settings say of it, and what is answered."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.sections.autostart import Start
from vm_babysitter.domain.autostart import Entry, Otherwise, key_of, parse_condition
from vm_babysitter.domain.errors import BabysitterError, Busy, VmNotFound
from vm_babysitter.domain.event import Event
from vm_babysitter.engine.autostart import Autostart, Progress
from vm_babysitter.engine.autostart_run import AutostartTools
from vm_babysitter.ports import Clock, ListCopy, Probes, RunMarks, VmService
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.own_autostart import OpenHypervisor, OwnAutostart
from vm_babysitter.views import (
    AutostartRunView,
    AutostartStateView,
    AutostartView,
    AutostartVmView,
)

_log = logging.getLogger(__name__)
_EVERY = 5.0
"""Seconds between two looks whether the copy is to be written, or a switch given back."""
_TWICE = "It comes up at once with all others, too: its own Autostart switch is on."
_ON_AGAIN = (
    "Somebody has turned its own Autostart switch on again: it comes up at once with all others."
)
_GONE = "libvirt has no such VM."


@dataclass(frozen=True, slots=True)
class AutostartWorld:
    """What the autostart needs of the world."""

    marks: RunMarks
    clock: Clock
    open_hypervisor: OpenHypervisor
    probes: Probes
    service: VmService
    copy: ListCopy


class AutostartPart:
    """Begins runs, keeps the copy of the list, and gives switches back."""

    def __init__(
        self,
        world: AutostartWorld,
        configuration: Configuration,
        own: OwnAutostart,
        refs: Callable[[], Sequence[VmRef] | None],
        tell: Callable[[Event], None],
    ) -> None:
        """``refs`` returns the VMs that there are; None while that is not known."""
        self.own = own
        self._world = world
        self._configuration = configuration
        self._refs = refs
        tools = AutostartTools(
            world.marks, world.clock, world.open_hypervisor, world.probes, self._entries, tell
        )
        self._autostart = Autostart(tools, world.service)
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="autostart-list", daemon=True)
        self._problems: dict[str, str] = {}
        configuration.on_change(self._news.set)

    # -- start and stop -----------------------------------------------------------------

    def start(self) -> None:
        """Go on with a run in which the daemon was killed; the settings are known by now."""
        if self._configuration.loaded is not None:
            self._autostart.start()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End; a start that hangs is left behind."""
        self._stopping.set()
        self._news.set()
        self._autostart.stop(seconds)
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _keep(self) -> None:
        done: object = None
        while not self._stopping.is_set():
            settings, refs = self._configuration.settings.autostart, self._refs()
            now = (settings, refs, self._configuration.problem is None)
            if refs is not None and now != done:
                tasks = [self._tried("copy", self._copy), self._tried("switches", self.own.settle)]
                done = now if all(tasks) else None
            self._news.wait(_EVERY)
            self._news.clear()

    def _tried(self, what: str, work: Callable[[], None]) -> bool:
        """Do something that is tried again if it fails; the same failure is told once."""
        try:
            work()
        except BabysitterError as error:
            if self._problems.get(what) != str(error):
                _log.warning("The autostart list: %s", error)
            self._problems[what] = str(error)
            return False
        self._problems.pop(what, None)
        return True

    def _copy(self) -> None:
        """Have the copy say what the settings say, unless they cannot be read."""
        refs = self._refs()
        if self._configuration.problem is not None or refs is None:
            return
        lines: dict[str, tuple[str, int, str]] = {}
        for one in self._configuration.settings.autostart.vms:
            vm = _find(refs, one.vm)
            uuid, name = (key_of(one.vm), one.vm) if vm is None else (vm.uuid.lower(), vm.name)
            if vm is not None or uuid == one.vm.lower():
                lines.setdefault(uuid, (uuid, one.delay, name))
        self._world.copy.write(tuple(lines.values()))

    def _entries(self) -> Sequence[Entry]:
        return [_entry(one) for one in self._configuration.settings.autostart.vms]

    # -- what is answered ----------------------------------------------------------------

    def begin(self, run: str | None) -> AutostartRunView:
        """Begin a run, see ``Autostart.begin``; not before it is known which VMs are in the list.

        Raises:
            Busy, or what is wrong with the settings: the shell script has a copy of the list.
        """
        if self._configuration.loaded is None:
            raise self._configuration.problem or Busy("The daemon", "it is just being started")
        return self._run_view(self._autostart.begin(run))

    def view(self, owned: Mapping[str, bool] | None) -> AutostartView:
        """Return list and last run; ``owned`` says by UUID which VMs start by themselves."""
        settings, refs = self._configuration.settings.autostart, self._refs() or ()
        taken = {uuid.lower() for uuid in settings.taken}
        vms = tuple(_vm_view(one, _find(refs, one.vm), owned, taken) for one in settings.vms)
        last = self._autostart.now()
        return AutostartView(vms, None if last is None else self._run_view(last))

    def take_over(self, vm: VmRef, *, take: bool) -> None:
        """Turn a VM's own switch off, or on again if it was; see ``OwnAutostart``."""
        if take:
            self.own.take_over(vm)
        else:
            self.own.turn_on_again(vm)

    def owned(self) -> Mapping[str, bool]:
        """Ask libvirt which VMs of the list start by themselves."""
        refs, found = self._refs() or (), {}
        with self._world.open_hypervisor() as hypervisor:
            for one in self._configuration.settings.autostart.vms:
                vm = _find(refs, one.vm)
                try:
                    if vm is not None:
                        found[vm.uuid] = hypervisor.own_autostart(vm.uuid)
                except VmNotFound:
                    continue
        return found

    def _run_view(self, progress: Progress) -> AutostartRunView:
        states: dict[str, AutostartStateView] = {}
        refs = self._refs() or ()
        for one in self._configuration.settings.autostart.vms:
            vm = _find(refs, one.vm)
            uuid, name = (key_of(one.vm), one.vm) if vm is None else (vm.uuid.lower(), vm.name)
            note = progress.notes.get(uuid, "")
            view = AutostartStateView(name, uuid, progress.marks.get(uuid), note)
            states.setdefault(uuid, view)
        return AutostartRunView(
            progress.run, progress.state, progress.begun, progress.held, tuple(states.values())
        )


def _find(refs: Sequence[VmRef], word: str) -> VmRef | None:
    named = [vm for vm in refs if vm.name == word]
    return next(iter([*named, *(vm for vm in refs if vm.called(word))]), None)


def _entry(one: Start) -> Entry:
    return Entry(
        one.vm,
        one.vm,
        one.delay,
        tuple(map(parse_condition, one.wait_for)),
        one.timeout,
        Otherwise(one.otherwise),
        one.tries,
    )


def _vm_view(
    one: Start, vm: VmRef | None, owned: Mapping[str, bool] | None, taken: set[str]
) -> AutostartVmView:
    own = None if vm is None or owned is None else owned.get(vm.uuid)
    is_taken = vm is not None and vm.uuid.lower() in taken
    note = _GONE if vm is None else ""
    if own:
        note = _ON_AGAIN if is_taken else _TWICE
    return AutostartVmView(
        one.vm if vm is None else vm.name,
        "" if vm is None else vm.uuid,
        one.vm,
        one.delay,
        one.wait_for,
        one.timeout,
        one.otherwise,
        one.tries,
        own,
        is_taken,
        note,
    )
