"""A restore point while it is being made: ``ports.PointDraft``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from blake3 import blake3

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.adapters.store.index_file import IndexWriter
from vm_babysitter.adapters.store.owners import note_vm
from vm_babysitter.domain.point import Point, PointDisk, SavedFile
from vm_babysitter.lib.atomicfile import fsync_directory, write_new
from vm_babysitter.ports import ImageWriter

NewImage = Callable[[Path, int, str | None, str | None], ImageWriter]
"""Begins an image file: path, size in bytes, backing file and its format."""


class LocalDraft:
    """Implements ``ports.PointDraft`` on a directory made for it."""

    def __init__(self, path: Path, new_image: NewImage, allowed: Callable[[], None]) -> None:
        """``allowed`` raises if this host may no longer write to the folder.

        Another one may by then be making a point of the same name, so it is asked before
        every file, too.
        """
        self._path = path
        self._new_image = new_image
        self._allowed = allowed

    def image(self, target: str, size: int, parent: tuple[Point, PointDisk] | None) -> ImageWriter:
        """See the port."""
        self._allowed()
        path = self._path / layout.target_file(target, "qcow2")
        if parent is None:
            return self._new_image(path, size, None, None)
        point, disk = parent
        backing = layout.backing_path(point.directory, disk.file)
        return self._new_image(path, size, backing, "qcow2")

    def index(self, target: str, size: int) -> IndexWriter:
        """See the port."""
        self._allowed()
        return IndexWriter(self._path / layout.target_file(target, "index"), size)

    def drop(self, target: str) -> None:
        """See the port."""
        self._allowed()
        for suffix in ("qcow2", "index"):
            path = self._path / layout.target_file(target, suffix)
            failing(path, partial(path.unlink, missing_ok=True))

    def save(self, name: str, content: bytes) -> SavedFile:
        """See the port."""
        self._allowed()
        path = self._path / name
        failing(path, lambda: write_new(path, content))
        return SavedFile(name, len(content), blake3(content).hexdigest())

    def commit(self, point: Point) -> None:
        """See the port."""
        # The names of all files first, so that a manifest never speaks of a file that is not
        # there; writing it then syncs the directory a second time.
        failing(self._path, lambda: fsync_directory(self._path))
        self._allowed()
        note_vm(self._path.parent.parent, point.vm_uuid, point.vm_name)
        documents.write(self._path / layout.POINT_FILE, "point", point)
