"""Say to QEMU which images to open and how, as block nodes."""

import os
import stat
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path

Node = dict[str, object]
"""A block node as QEMU's ``blockdev-add`` takes it."""

_L2_CACHE = 1 << 20
"""Bytes of metadata cache per qcow2 layer. QEMU's own limit is 32 MiB a layer, too much for a
deep chain. One MiB maps 8 GiB of disk, plenty for reading from front to back."""


def file_node(path: Path) -> Node:
    """Return the node of a file or block device, whatever its name looks like.

    As a plain file name, ``:`` would make a protocol of it and ``,`` an option.
    """
    path = path.absolute()
    try:
        is_block_device = stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        is_block_device = False  # QEMU will say what is wrong with it
    return {"driver": "host_device" if is_block_device else "file", "filename": os.fspath(path)}


def shared_chain(layers: Sequence[tuple[Path, str]]) -> Node:
    """Return the node of a chain of images to read, the top layer first.

    Every layer is read-only and shared with whoever writes it. Backing links inside the files
    are not followed.
    """
    shared: Node = {"read-only": True, "force-share": True}
    below: Node | None = None
    for path, format in reversed(layers):
        node: Node = {"driver": format, "file": file_node(path) | shared} | shared
        if format == "qcow2":
            node |= {"l2-cache-size": _L2_CACHE, "backing": below}
        elif below is not None:
            raise ValueError(f"an image of format {format} has no layer below it")
        below = node
    if below is None:
        raise ValueError("a chain without layers cannot be read")
    return below


def exclusive(path: Path, format: str) -> Node:
    """Return the node of one image to write. Zeros become holes only where asked for."""
    unmap: Node = {"discard": "unmap"}
    return {
        "driver": format,
        "file": file_node(path) | unmap,
        "detect-zeroes": "off",
    } | unmap


def as_filename(node: Mapping[str, object]) -> str:
    """Return a node as something QEMU's tools take in place of a file name."""
    return "json:" + dumps(node)
