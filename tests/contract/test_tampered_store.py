"""Documents with a right digest that nobody of us wrote, and VMs that look alike.

Whoever can write to the backup folder (a share, often) must not make root write or delete
elsewhere by it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.contract.test_local_store import opened, write
from tests.support.points import BEGAN, CHAIN_ID, VM_UUID, attempt, point
from vm_babysitter.adapters.store import documents
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import InvalidInput
from vm_babysitter.domain.point import Point, SavedFile
from vm_babysitter.domain.vm import PowerState, Vm

VM = Vm(VM_UUID, "it's a VM", PowerState.RUNNING, ())
NAMES = ["../evil", "..", "/etc/evil", ".hidden", "", "a/b", "-rf", "a\nb"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with a chain of one point."""
    folder = tmp_path / "store"
    folder.mkdir()
    store = opened(folder)
    made = attempt(0)
    draft = store.begin(store.new_chain(VM, CHAIN_ID, BEGAN), made)
    draft.commit(write(draft, point(0)))
    store.sweep(made)
    return store


def only_chain(store: LocalStore) -> Chain:
    (chain,) = store.chains(VM_UUID)
    return chain


def tamper(store: LocalStore, **fields: object) -> None:
    """Write the manifest anew with other fields and a right digest."""
    (path,) = store.path.glob("*/*/*/point.json")
    documents.write(path, "point", replace(documents.read(path, "point", Point), **fields))  # type: ignore[arg-type]


def test_a_point_as_it_was_written_is_whole(store: LocalStore) -> None:
    assert only_chain(store).broken == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["target", "file", "index"])
def test_names_of_a_disk_do_not_lead_out_of_its_folder(
    store: LocalStore, field: str, name: str
) -> None:
    (disk,) = only_chain(store).points[0].point.disks
    tamper(store, disks=(replace(disk, **cast(Any, {field: name})),))
    assert "outside of its folder" in only_chain(store).broken[0]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_do_not_lead_out_of_their_folder(store: LocalStore, name: str) -> None:
    tamper(store, files=(SavedFile(name, 9, "0" * 64),))
    assert "outside of its folder" in only_chain(store).broken[0]


@pytest.mark.parametrize("name", ["../chain.json", "/etc/evil"])
def test_a_point_that_names_a_file_elsewhere_is_not_removed(store: LocalStore, name: str) -> None:
    tamper(store, files=(SavedFile(name, 9, "0" * 64),))
    before = sorted(store.path.rglob("*"))
    with pytest.raises(InvalidInput):
        store.remove_points(VM_UUID, only_chain(store), (0,))
    assert sorted(store.path.rglob("*")) == before


def test_a_point_that_names_a_file_elsewhere_has_none_of_its_files_looked_at(
    store: LocalStore,
) -> None:
    (store.path / "elsewhere").write_bytes(b"x")
    tamper(store, files=(SavedFile("../../../elsewhere", 9, "0" * 64),))
    (flaw,) = only_chain(store).points[0].flaws  # its size is not told, though it is wrong
    assert flaw.file == ""


@pytest.mark.parametrize("parent", [0, 7])
def test_a_point_does_not_build_on_itself_or_a_later_one(store: LocalStore, parent: int) -> None:
    tamper(store, parent=parent)
    assert "later restore point" in only_chain(store).broken[0]


def test_a_state_that_never_was_is_damage_that_the_points_get_over(store: LocalStore) -> None:
    (path,) = store.path.glob("*/*/chain.json")
    text = path.read_text()
    assert '"live"' in text
    body = {"id": CHAIN_ID, "vm_uuid": VM_UUID, "state": "zombie", "why": "", "created": BEGAN}
    documents.write(path, "chain", body)
    assert [stored.point.seq for stored in only_chain(store).points] == [0]


def test_a_vm_that_looks_like_another_to_eight_digits_gets_a_folder_of_its_own(
    store: LocalStore,
) -> None:
    other = Vm(VM_UUID[:8] + "-ffff-4fff-8fff-ffffffffffff", VM.name, PowerState.RUNNING, ())
    store.new_chain(other, "f" * 8 + CHAIN_ID[8:], BEGAN)
    again = opened(store.path)
    assert [stored.point.seq for stored in only_chain(again).points] == [0]
    assert len(again.chains(other.uuid)) == 1
    assert {vm.uuid for vm in again.vms()} == {VM_UUID, other.uuid}
