"""A backup folder that the first version wrote is verified with QEMU's own tools, for ever."""

import gzip
import shutil
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.observer import RecordingObserver
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import open_store
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.pace import Pace
from vm_babysitter.engine.tools import ReadTools
from vm_babysitter.engine.verify import Verify

GOLDEN = Path(__file__).parents[1] / "data" / "format-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    shutil.copytree(GOLDEN, folder)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


def verify(folder: Path) -> dict[str, tuple[str, ...]]:
    store = open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=False, allow_ram=True)
    work = Verify(
        store,
        ReadTools(
            QemuImageTool(), fingerprint, RecordingObserver(), Cancel(), Pace(None, Cancel())
        ),
        FakeClock(),
    )
    (vm,) = store.vms()
    results = work.all(vm.uuid)
    assert all(result.content or result.problems for result in results)
    return {result.point: result.problems for result in results}


def test_all_points_are_proven_with_their_content(folder: Path) -> None:
    assert verify(folder) == {
        "20261124T021501Z/000000": (),
        "20261124T021502Z/000000": (),
        "20261124T021502Z/000001": (),
    }


def test_a_changed_byte_of_an_image_is_told_at_all_points_that_need_it(folder: Path) -> None:
    (image,) = folder.rglob("20261124T021502Z/000000-full/vda.qcow2")
    with image.open("r+b") as file:
        file.seek(65536 + 7)
        file.write(b"?")
    found = verify(folder)
    assert [bool(problems) for problems in found.values()] == [False, True, True]
