"""Where backups go."""

from typing import Annotated

from msgspec import Struct

from vm_babysitter.config.forms import FOLDER
from vm_babysitter.config.keys import about


class Store(Struct, frozen=True):
    """Where backups go."""

    path: Annotated[
        str,
        about(
            "The backup folder. Empty: not set up yet, nothing is backed up.",
            example="/mnt/user/backups/vms",
            form=FOLDER,
        ),
    ] = ""
    id: Annotated[
        str,
        about(
            "The id of the backup folder, so that another folder in its place is noticed. "
            "Empty until it is set up.",
            example="9b2d6c1e-6a55-4f0e-8f5e-0a4f5d1f7c33",
            longest=64,
            own=True,
        ),
    ] = ""
    filesystem: Annotated[
        str,
        about(
            "The id of the file system that it lies on, so that a disk that is not mounted is "
            "not taken for an empty folder. Empty until it is set up.",
            example="xfs /dev/md1p1 at /mnt/disk1",
            longest=255,
            own=True,
        ),
    ] = ""
