"""Giving VMs back: the settings leave them alone, libvirt starts them, their images are cleared."""

from collections.abc import Callable

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.selection import selected
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import BabysitterError, SettingsFailed, VmNotFound
from vm_babysitter.domain.job import Job, Outcome, Result
from vm_babysitter.engine.app import App
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Observer
from vm_babysitter.service.configuration import Configuration

GiveBack = Callable[[str], object]
"""Has a VM (UUID) start by itself again if it did so before, and be started by nobody else."""

_TRIES = 3
"""For settings that somebody else changes at the same time."""


class Releasing:
    """Does jobs of the kind ``release``."""

    def __init__(
        self,
        compose: Callable[[Observer, Cancel], App],
        configuration: Configuration,
        give_back: GiveBack,
    ) -> None:
        self._compose = compose
        self._configuration = configuration
        self._give_back = give_back

    def release(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Give a VM back. First nothing new is to begin, then what is there is removed.

        Interrupted at any moment, it is done again by the same job.
        """
        vm = VmRef(job.request.vm_uuid, job.request.vm_name)
        any_folder = job.request.options.get("any_folder", False) is True
        left = [*self._tried(lambda: self._leave_alone(vm)), *self._tried(lambda: self._give(vm))]
        try:
            app = self._compose(observer, cancel)
            with app.release(any_folder=any_folder) as engine:
                found = engine.run(vm.uuid, any_folder=any_folder)
        except VmNotFound:
            summary = f"Neither libvirt nor the backup folder has VM {vm.name!r} any more."
            return Outcome(Result.WARNINGS if left else Result.NOTHING, summary, warnings=(*left,))
        for note in found.notes:
            observer.note(note)
        left += found.left
        return Outcome(Result.WARNINGS if left else Result.OK, found.summary, warnings=tuple(left))

    def _tried(self, work: Callable[[], None]) -> list[str]:
        """Do something that the rest does not depend on. Returns what failed."""
        try:
            work()
        except BabysitterError as error:
            return [str(error)]
        return []

    def _leave_alone(self, vm: VmRef) -> None:
        """Have the VM not be backed up by itself, if it would be."""

        def backed_up(settings: Settings) -> bool:
            return selected(settings, [vm])[vm.uuid] is None

        for _ in range(_TRIES):
            now = self._configuration.settings
            if not backed_up(now):
                break
            ignored = [*now.vms.ignored, vm.uuid]

            def same(settings: Settings, before: Settings = now) -> bool:
                return settings.vms == before.vms

            self._configuration.change({("vms", "ignored"): ignored}, same)
        problem = self._configuration.problem
        if problem is not None:
            raise problem
        if backed_up(self._configuration.settings):
            way_out = f"it cannot be noted that {vm.name!r} is no longer to be backed up"
            raise SettingsFailed(str(self._configuration.file.path), way_out)

    def _give(self, vm: VmRef) -> None:
        self._give_back(vm.uuid)
