"""File systems that lose, when the power fails, what nobody had told them to keep."""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN = 0x8004587D
"""``EXT4_IOC_SHUTDOWN``; its argument says what is still written: nothing."""
_NO_LOG_FLUSH = struct.pack("I", 2)
_PATIENCE = 10.0


class LazyDisk:
    """A small ext4 of the tests' own that writes little before it is told to.

    To be used in a mount namespace of our own: whoever else has it mounted would keep it dead
    after ``cut``.
    """

    def __init__(self, image: Path, place: Path, size: int) -> None:
        self.place = place
        self._image = image
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", str(image))
        place.mkdir()
        self.mount()
        (place / "lost+found").rmdir()
        self.sync()

    def mount(self) -> None:
        """Have it again, with all that had reached the disk."""
        options = "loop,data=writeback,commit=600"
        _run("mount", "-o", options, str(self._image), str(self.place))

    def unmount(self) -> None:
        """Take it away; whoever has it open gets a moment to end."""
        deadline = time.monotonic() + _PATIENCE
        while subprocess.run(
            ["umount", str(self.place)], check=False, capture_output=True
        ).returncode:
            if time.monotonic() > deadline:
                _run("umount", str(self.place))
            time.sleep(0.02)
        # A mount namespace that has just ended may still hold it, shut down as it is.
        while subprocess.run(
            ["losetup", "--associated", str(self._image)], check=True, capture_output=True
        ).stdout:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._image} stays mounted somewhere")
            time.sleep(0.01)

    def sync(self) -> None:
        """Have everything on the disk."""
        _run("sync", "--file-system", str(self.place))

    def cut(self) -> None:
        """Lose at once what had not reached the disk, and come back."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)
        self.unmount()
        self.mount()

    def fill(self, left: int) -> None:
        """Take all space but so many bytes."""
        room = os.statvfs(self.place)
        free = room.f_bavail * room.f_frsize
        with (self.place / _FILLER).open("wb") as file:
            if free > left:
                os.posix_fallocate(file.fileno(), 0, free - left)

    def free(self) -> None:
        """Give the space back."""
        (self.place / _FILLER).unlink(missing_ok=True)

    @property
    def full(self) -> bool:
        """Whether it was filled."""
        return (self.place / _FILLER).exists()

    def close(self) -> None:
        """Unmount it and forget it."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=False)
        self._image.unlink()


_FILLER = "films of somebody else's"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
