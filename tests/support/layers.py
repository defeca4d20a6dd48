"""Disks of few blocks, in memory, and the qcow2 layers that should read like them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path

from blake3 import blake3

from tests.support.qemu_img import assert_clean, assert_same
from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.compression import Compression
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.domain.blocks import BLOCK_SIZE, block_length
from vm_babysitter.ports import WrittenFile

LONGEST_RUN = 16


def content(seed: object, length: int = BLOCK_SIZE) -> bytes:
    """Return bytes that compress badly and differ for each ``seed``."""
    return blake3(str(seed).encode()).digest(length=length)


def shrinking(seed: object, chance: int, length: int = BLOCK_SIZE) -> bytes:
    """Return bytes of which the first ``chance`` compress badly and the rest well."""
    return content(seed, min(chance, length)).ljust(length, str(seed)[:1].encode() or b"-")


@dataclass(frozen=True)
class Layer:
    """What one restore point changes: data by block, or None for a block that became zero."""

    size: int
    blocks: dict[int, bytes | None]


@dataclass
class Disk:
    """What a disk holds; blocks not named are zero."""

    size: int = 0
    blocks: dict[int, bytes] = field(default_factory=dict)

    def change(self, layer: Layer) -> None:
        """Become what ``layer`` makes of this disk, resizing it first."""
        kept = {
            b: d[: layer.size - b * BLOCK_SIZE]
            for b, d in self.blocks.items()
            if b * BLOCK_SIZE < layer.size
        }
        for block, data in layer.blocks.items():
            kept[block] = data or b""
        self.size, self.blocks = layer.size, kept

    def write_raw(self, path: Path) -> None:
        """Write the disk as a sparse raw file."""
        with path.open("wb") as file:
            file.truncate(self.size)
            for block, data in self.blocks.items():
                file.seek(block * BLOCK_SIZE)
                file.write(data)


def write_layer(
    path: Path,
    layer: Layer,
    backing: str | None = None,
    seed: int = 0,
    compression: Compression | None = None,
) -> WrittenFile:
    """Write a layer: its data in an order shuffled by ``seed``, then its map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Qcow2Writer(path, layer.size, backing, backing and "qcow2", compression)
    runs = consecutive(sorted(layer.blocks.items()))
    places: dict[int, int] = {}
    for run in random.Random(seed).sample(runs, len(runs)):
        if run[0][1] is not None:
            data = b"".join(d for _b, d in run if d is not None)
            places[run[0][0]] = writer.append(memoryview(data), list(fingerprints(data)))
    for run in runs:
        first = run[0][0]
        if first in places:
            writer.map_data(first, places[first], len(run))
        else:
            writer.map_zero(first, len(run))
    written = writer.finish()
    name = compression.name if compression else ""
    assert written == WrittenFile(path.stat().st_size, digest_file(path), name)
    return written


def write_chain(
    folder: Path, layers: Sequence[Layer], compressions: Sequence[Compression | None] = ()
) -> tuple[Path, Disk]:
    """Write layers as restore points. Returns the newest file and the disk it should be."""
    disk = Disk()
    newest: Path | None = None
    for seq, (layer, compression) in enumerate(zip_longest(layers, compressions)):
        path = folder / f"{seq:06d}-{'inc' if seq else 'full'}" / "vda.qcow2"
        backing = f"../{newest.parent.name}/{newest.name}" if newest else None
        write_layer(path, layer, backing, seed=seq, compression=compression)
        disk.change(layer)
        newest = path
    assert newest is not None
    return newest, disk


def assert_reads_like(image: Path, disk: Disk, folder: Path) -> None:
    """Fail unless QEMU finds an image clean and with the disk's content."""
    raw = folder / "model.raw"
    disk.write_raw(raw)
    assert_clean(image)
    assert_same(image, raw)


def consecutive(
    blocks: Sequence[tuple[int, bytes | None]],
) -> list[list[tuple[int, bytes | None]]]:
    """Group blocks into runs of neighbours that are all data or all zero."""
    keyed = groupby(
        enumerate(blocks),
        key=lambda nb: (nb[1][0] - nb[0], nb[1][0] // LONGEST_RUN, nb[1][1] is None),
    )
    return [[block for _n, block in run] for _key, run in keyed]


def filled(size: int, blocks: Sequence[int], seed: object = "") -> Layer:
    """Return a layer with data in ``blocks``."""
    return Layer(size, {b: content((seed, b), block_length(b, size)) for b in blocks})
