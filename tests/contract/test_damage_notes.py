"""What a verify remembers of a restore point, on a disk whose power fails."""

import shutil
from pathlib import Path

import pytest

from tests.support.mounts import lazy_disk
from tests.support.points import BEGAN, point
from vm_babysitter.adapters.store.damage import noted_flaws, write_note
from vm_babysitter.domain.chain import Flaw
from vm_babysitter.domain.damage import DamageNote

FLAW = Flaw("vda.qcow2", "its content is not what was written")


@pytest.mark.parametrize("flaws", [(FLAW,), ()], ids=["damaged", "whole again"])
def test_what_was_noted_last_survives_a_power_cut(tmp_path: Path, flaws: tuple[Flaw, ...]) -> None:
    of, cut = point(0), tmp_path / "image as it is on the disk"
    with lazy_disk(tmp_path / "image", tmp_path / "disk") as chain:
        for found in ((FLAW,), flaws):
            write_note(chain, of, DamageNote(of.seq, of.nonce, BEGAN, found))
        shutil.copyfile(tmp_path / "image", cut)
    with lazy_disk(cut, tmp_path / "after") as chain:
        assert noted_flaws(chain, of) == flaws
