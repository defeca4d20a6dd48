"""What QEMU's monitor says of disks, layers and bitmaps. Pure: parses answers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vm_babysitter.domain.vm import Bitmap, Layer

Json = Mapping[str, Any]

_FILTERS = frozenset(
    {
        "compress",
        "copy-before-write",  # while a backup job runs
        "copy-on-read",  # where the VM's definition says so
        "commit_top",
        "mirror_top",
        "preallocate",
        "throttle",
    }
)
"""Drivers of nodes that lie on top of an image and are none themselves."""


def find_device(blocks: Sequence[Json], alias: str) -> Json | None:
    """Return the entry of ``query-block`` that belongs to a libvirt device alias."""
    for block in blocks:
        qdev = str(block.get("qdev", ""))
        if alias and (qdev == alias or f"/{alias}/" in qdev or qdev.endswith(f"/{alias}")):
            return block
    return None


def layers(block: Json, nodes: Sequence[Json]) -> tuple[Layer, ...]:
    """Return the layers of a device from the active one down.

    ``block`` is an entry of ``query-block``, ``nodes`` the answer of
    ``query-named-block-nodes``: only the latter tells the bitmaps of every layer.
    """
    inserted = block.get("inserted")
    if not inserted:
        return ()
    found: list[Layer] = []
    image: Json | None = inserted.get("image")
    while image is not None:
        path, driver = str(image.get("filename", "")), str(image.get("format", ""))
        if driver not in _FILTERS:
            bitmaps = _bitmaps_of(nodes, path, driver)
            # Those without a name are a running job's own.
            named = tuple(_bitmap(b) for b in bitmaps if b.get("name"))
            found.append(Layer(_plain(path), named))
        image = image.get("backing-image")
    return tuple(found)


def internal_snapshots(block: Json) -> int:
    """Return how many internal snapshots the active image of a device holds."""
    image = (block.get("inserted") or {}).get("image", {})
    while image.get("format") in _FILTERS and "backing-image" in image:
        image = image["backing-image"]
    return len(image.get("snapshots", ()))


def _plain(name: str) -> str:
    """Return the path in a file name of QEMU's, which is JSON where a path does not say it all.

    So it is with encrypted images, with data files, and over a backing file named explicitly.
    """
    try:
        told = json.loads(name.removeprefix("json:")) if name.startswith("json:") else {}
    except ValueError:
        return name
    while isinstance(told, dict):
        if isinstance(told.get("filename"), str):
            return str(told["filename"])
        told = told.get("file")
    return name


def _bitmaps_of(nodes: Sequence[Json], path: str, driver: str) -> Sequence[Json]:
    for node in nodes:
        if node.get("drv") == driver and node.get("file") == path:
            bitmaps: Sequence[Json] = node.get("dirty-bitmaps", ())
            return bitmaps
    return ()


def _bitmap(entry: Json) -> Bitmap:
    return Bitmap(
        name=str(entry.get("name", "")),
        recording=bool(entry.get("recording", False)),
        inconsistent=bool(entry.get("inconsistent", False)),
        dirty=entry.get("count"),
    )
