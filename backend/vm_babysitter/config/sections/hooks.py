"""Commands of the user's around the backup of a VM."""

from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.forms import COMMAND
from vm_babysitter.config.keys import about

Word = Annotated[str, about("A program or an argument.", example="/bin/true", longest=4096)]


class Hook(Struct, frozen=True):
    """One command."""

    argv: Annotated[
        tuple[Word, ...],
        about(
            "The program, by its whole path, and its arguments; no shell reads them. Empty: no "
            "command.",
            # By its shell: nothing on Unraid's flash drive can be run by itself.
            example=["/bin/bash", "/boot/config/before-backup.sh", "nightly"],
            longest=64,
            form=COMMAND,
        ),
    ] = ()
    timeout: Annotated[
        int,
        about(
            "How long it may take; then it is ended, and counts as failed.",
            example=60,
            unit="seconds",
            least=1,
            most=3600,
        ),
    ] = 60
    on_failure: Annotated[
        Literal["warn", "stop"],
        about(
            "What its failure means. `warn`: a warning. `stop`: before the backup, that this VM is "
            "not backed up now; after it, that the job counts as failed (the restore point stays).",
            example="warn",
        ),
    ] = "warn"


Before = Annotated[Hook, about("Runs before each backup of a VM.")]
After = Annotated[
    Hook,
    about(
        "Runs after each backup of a VM, whatever came of it and of the command before it: the "
        "variable VMB_RESULT says ok, failed or cancelled."
    ),
]


class Hooks(Struct, frozen=True):
    """Commands of the user's around the backup of a VM."""

    before: Before = Hook()
    after: After = Hook()
