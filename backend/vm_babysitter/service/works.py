"""What a job of each kind does: the engine put together for it, and its result in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.effective import BackupOptions, effective
from vm_babysitter.config.sections.hooks import Hook
from vm_babysitter.config.selection import IGNORED, NOT_CHOSEN, selected
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import VmNotFound
from vm_babysitter.domain.event import NOTHING_LEFT
from vm_babysitter.domain.job import Job, JobKind, JobRequest, Origin, Outcome, Result
from vm_babysitter.domain.repair_plan import RepairPolicy
from vm_babysitter.engine.app import App, Effort
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.hooks import Command, Commands, Hooks
from vm_babysitter.engine.job_thread import Work
from vm_babysitter.engine.repair import Repaired
from vm_babysitter.engine.verify import Verified
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.ports import Observer, RunCommand
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.views.points import stored_bytes

ComposeJob = Callable[[Observer, Cancel], App]
"""Puts the engine together for one job, with the settings of this moment."""
T = TypeVar("T")
_FEW = 5


class Works:
    """Does jobs."""

    def __init__(
        self,
        compose: ComposeJob,
        configuration: Configuration,
        guard: StoreGuard,
        run_command: RunCommand,
    ) -> None:
        self._compose = compose
        self._configuration = configuration
        self._guard = guard
        self._run_command = run_command

    def all(self) -> Mapping[JobKind, Work]:
        """Return what is done for each kind."""
        return {
            JobKind.BACKUP: self.backup,
            JobKind.VERIFY: self.verify,
            JobKind.REPAIR: self.repair,
            JobKind.RESTORE: self.restore,
            JobKind.CONVERT: self.convert,
        }

    def backup(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Make the next restore point of a VM, with the user's commands around it."""
        request = job.request
        if request.origin is not Origin.USER and self._is_left_alone(request):
            return Outcome(Result.NOTHING, "It is not backed up by itself any more.")
        settings = effective(self._configuration.settings, request.vm_uuid, request.vm_name)
        results: list[BackedUp] = []

        def work() -> Mapping[str, str]:
            results.append(self._back_up(job, settings, observer, cancel))
            return {"VMB_POINT": _point_name(results[0])}

        commands = Commands(_command(settings.before), _command(settings.after))
        hooks = Hooks(self._run_command, commands, observer, cancel)
        environment = {"VMB_VM": request.vm_name, "VMB_UUID": request.vm_uuid}
        try:
            failed = hooks.around(environment, work)
        except VmNotFound:
            if request.origin is not Origin.USER:
                return Outcome(Result.NOTHING, f"The VM {request.vm_name!r} is gone.")
            raise
        return _backed_up(results[0], failed)

    def _is_left_alone(self, request: JobRequest) -> bool:
        """Whether the VM was given back, or is ignored, since the job was queued."""
        vm = VmRef(request.vm_uuid, request.vm_name)
        why_not = selected(self._configuration.settings, [vm])[vm.uuid]
        return why_not in {IGNORED, NOT_CHOSEN}

    def _back_up(
        self, job: Job, settings: BackupOptions, observer: Observer, cancel: Cancel
    ) -> BackedUp:
        options, longest = job.request.options, settings.longest
        app = self._compose(observer, cancel)
        compress = _option(options, "compress", settings.compress)
        with app.backup(_effort(job, settings), compress=compress) as engine:
            result = engine.run(
                job.request.vm_uuid,
                force_full=_option(options, "full", False),
                reread_runs=_option(options, "reread_runs", settings.reread_runs),
                track_snapshots=_option(options, "track_snapshots", settings.track_snapshots),
                longest=None if longest is None else longest.total_seconds(),
            )
        self._guard.note()
        return result

    def verify(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Prove one restore point of a VM, or all."""
        request, options = job.request, job.request.options
        if request.origin is not Origin.USER and not self._configuration.settings.store.id:
            return _verified(())  # a schedule's turn came before that of the first backup
        engine = self._compose(observer, cancel).verify(_effort(job, self._options(job)))
        structure = _option(options, "structure", False)
        point = _option(options, "point", "")
        try:
            if point:
                found: Sequence[Verified] = (
                    engine.one(request.vm_uuid, point, structure_only=structure),
                )
            else:
                found = engine.all(request.vm_uuid, structure_only=structure)
        except VmNotFound:
            if request.origin is Origin.USER:
                raise
            found = ()
        return _verified(found)

    def repair(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Repair the backups of a VM."""
        policy = RepairPolicy(_option(job.request.options, "remove_lost", False))
        with self._compose(observer, cancel).repair() as engine:
            return _repaired(engine.run(job.request.vm_uuid, policy))

    def restore(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Bring the disks of a restore point back as image files."""
        options = job.request.options
        app = self._compose(observer, cancel)
        engine = app.restore(Path(str(options["to"])), _effort(job, self._options(job)))
        disks = _option(options, "disks", list[str]())
        wanted = _option(options, "format", "") or None
        done = engine.run(job.request.vm_uuid, str(options["point"]), tuple(disks), wanted)
        files = ", ".join(str(path) for path in done.files)
        content = format_bytes(done.content_bytes)
        summary = f"Restored {done.point}: {content} of content, checked: {files}."
        for note in done.notes:
            observer.note(f"{note}.")
        return Outcome(Result.OK, summary, done.point)

    def convert(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        """Turn a raw disk into qcow2, or back."""
        options, uuid = job.request.options, job.request.vm_uuid
        target = str(options["disk"])
        app = self._compose(observer, cancel)
        with app.convert(_effort(job, self._options(job))) as (there, back):
            if _option(options, "undo", False):
                lose = _option(options, "lose_changes", False)
                done = back.run(uuid, target, lose_changes=lose)
            else:
                done = there.run(uuid, target)
        kind = "raw" if done.undone else "qcow2"
        summary = (
            f"Disk {target} is {kind} now: {done.image}. The other image is kept: {done.kept}."
        )
        return Outcome(Result.OK, summary)

    def _options(self, job: Job) -> BackupOptions:
        request = job.request
        return effective(self._configuration.settings, request.vm_uuid, request.vm_name)


def _effort(job: Job, settings: BackupOptions) -> Effort:
    options = job.request.options
    limit = _option(options, "limit", settings.limit or 0)
    return Effort(limit or None, _option(options, "low_priority", settings.low_priority))


def _option(options: Mapping[str, object], name: str, default: T) -> T:
    """Return an option of a job, which the API has checked, else what the settings say."""
    value = options.get(name, default)
    if not isinstance(value, type(default)):
        raise TypeError(f"the option {name} of a job is {value!r}")
    return value


def _command(hook: Hook | None) -> Command | None:
    if hook is None:
        return None
    return Command(hook.argv, float(hook.timeout), hook.on_failure == "stop")


def _point_name(result: BackedUp) -> str:
    return f"{result.chain}/{result.point.seq:06d}"


def _backed_up(result: BackedUp, failed: Sequence[str]) -> Outcome:
    name, point = _point_name(result), result.point
    warnings = [*failed]
    if result.vm_resumed:
        warnings.append("QEMU had paused the VM for want of working space; it goes on now.")
    if result.left:
        warnings.append(f"Cleaning up is left to the next backup: {result.left}")
    if result.unchanged:
        summary = f"It is off and has not changed: restore point {name} is current."
        found = Outcome(Result.NOTHING, summary, name)
    else:
        warnings = [*point.warnings, *warnings]
        read = sum(disk.read_bytes for disk in point.disks)
        kind = "full backup" if point.level == "full" else "increment"
        summary = (
            f"Restore point {name} is complete: {kind}, {format_bytes(read)} read, "
            f"{format_bytes(stored_bytes(point))} stored, {format_duration(result.seconds)}."
        )
        found = Outcome(Result.OK, summary, name)
    if warnings:
        return replace(found, result=Result.WARNINGS, warnings=tuple(warnings))
    return found


def _verified(found: Sequence[Verified]) -> Outcome:
    if not found:
        return Outcome(Result.NOTHING, "There are no restore points yet.")
    bad = [each for each in found if not each.good]
    if not bad:
        what = "files complete" if not all(each.content for each in found) else "data correct"
        points = "restore point" if len(found) == 1 else "restore points"
        return Outcome(Result.OK, f"{len(found)} {points} good: {what}.", found[-1].point)
    names = ", ".join(each.point for each in bad[:_FEW]) + (" ..." if bad[_FEW:] else "")
    return Outcome(
        Result.FAILED,
        f"{len(bad)} of {len(found)} restore points are damaged: {names}.",
        bad[-1].point,
        tuple(f"{each.point}: {problem}" for each in bad for problem in each.problems),
        code="point-damaged",
        hint="The next backup goes on without them. `vm-babysitter status` says what is lost.",
    )


def _repaired(result: Repaired) -> Outcome:
    health = result.after.diagnosis.health
    left = [f"Not done: {step.what}." for step in (*result.left, *result.failed)]
    done = "; ".join(step.what for step in result.done)
    if health is Health.LOST:
        summary = "No restore point can be restored as a whole."
        summary += f" Done: {done}." if done else ""
        hint = "The next backup begins a new series; `Back up now` makes one at once."
        return Outcome(Result.WARNINGS, summary, warnings=tuple(left), code=NOTHING_LEFT, hint=hint)
    if not done and not left:
        return Outcome(Result.NOTHING, "Nothing was to be repaired.")
    summary = f"Done: {done}." if done else "Nothing could be repaired now."
    return Outcome(Result.WARNINGS if left else Result.OK, summary, warnings=tuple(left))
