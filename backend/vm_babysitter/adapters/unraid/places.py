"""Where on an Unraid server things that must last are kept: neither in RAM nor on the flash."""

from pathlib import Path

_NAME = "vm-babysitter"
_SHARE = "system"
"""Unraid's own share for what belongs to services, such as libvirt's image."""


def state_folder(root: Path = Path("/")) -> Path | None:
    """Return where the journal and logs go: on the first pool with the share ``system``.

    None where there is none, as with the array stopped. ``root`` is where the host's file system
    begins.
    """
    pools = sorted((root / "boot/config/pools").glob("*.cfg"))
    places = [root / "mnt" / pool.stem / _SHARE for pool in pools]
    places.append(root / "mnt/user" / _SHARE)
    return next((place / _NAME for place in places if place.is_dir()), None)
