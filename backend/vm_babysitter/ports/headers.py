"""The headers of the images in the backup folder."""

from pathlib import Path
from typing import Protocol

from vm_babysitter.domain.point import PointDisk
from vm_babysitter.ports.store import Passed


class ImageHeaders(Protocol):
    """Tells whether an image's header is what was written, and puts it back if need be.

    The manifest tells all that a header says, and the image's digest proves it.
    """

    def problem(self, path: Path, disk: PointDisk) -> str:
        """Say what is wrong with the header, empty if nothing; only that much is read.

        Raises:
            Damaged, StoreFailed: it cannot be read.
        """

    def mend(self, path: Path, disk: PointDisk, passed: Passed = lambda _: None) -> bool:
        """Put the header back, if the image is then exactly what was written; reads all of it.

        Nothing is written otherwise. ``passed`` is told how many bytes more were read; what it
        raises ends it.

        Returns whether the image is what was written.

        Raises:
            Damaged, StoreFailed: it cannot be read or written; doing it again goes on.
        """
