"""All settings: one line for each section."""

from typing import Annotated

from msgspec import Struct

from vm_babysitter.config.keys import about
from vm_babysitter.config.sections.autostart import Autostart
from vm_babysitter.config.sections.backup import Backup
from vm_babysitter.config.sections.hooks import Hooks
from vm_babysitter.config.sections.log import Log
from vm_babysitter.config.sections.notify import Notify
from vm_babysitter.config.sections.per_vm import OneVm
from vm_babysitter.config.sections.schedules import DAILY, SCHEDULES, Schedule
from vm_babysitter.config.sections.space import SPACE, Space
from vm_babysitter.config.sections.store import Store
from vm_babysitter.config.sections.vms import Name, Vms
from vm_babysitter.config.sections.waits import Waits

# fmt: off
Schedules = Annotated[tuple[Schedule, ...], about(
    "What is done when.", longest=100, form=SCHEDULES,
)]
PerVm = Annotated[dict[Name, OneVm], about(
    "What is different for one VM, by its name or UUID. The UUID counts if both are there.",
    longest=1000,
)]


class Settings(Struct, frozen=True):
    """All settings; each has a default, so none need be there."""

    store: Annotated[Store, about("Where backups go.")] = Store()
    schedules: Schedules = (DAILY,)
    vms: Annotated[Vms, about("Which VMs are backed up.")] = Vms()
    backup: Annotated[Backup, about("How backups are made.")] = Backup()
    hooks: Annotated[Hooks, about(
            "Commands of yours around the backup of each VM: one before it, and one after it, "
            "whatever came of it and of the command before. What it is about is in variables: "
            "VMB_VM, VMB_UUID, VMB_WHEN (before or after); after it also VMB_RESULT (ok, failed "
            "or cancelled), VMB_POINT, VMB_ERROR."
        )] = Hooks()
    space: Annotated[Space, about("When the backup folder fills up.", form=SPACE)] = Space()
    waits: Annotated[Waits, about("What scheduled jobs wait for.")] = Waits()
    autostart: Annotated[Autostart, about(
            "Which VMs are started in which order when the VM service has started.",
        )] = Autostart()
    notify: Annotated[Notify, about(
            "What you are told, and by which ways. Failures and warnings are always told."
        )] = Notify()
    log: Annotated[Log, about("What is written down, and how long it is kept.")] = Log()
    per_vm: PerVm = {}
# fmt: on
