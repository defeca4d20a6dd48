"""Documents of the backup folder: read as written, or refused; format 1 is read for ever."""

import gzip
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fakes.clock import FakeClock
from tests.support.points import attempt, line, point
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store import documents
from vm_babysitter.adapters.store.documents import ChainDocument, StoreDocument, VmDocument
from vm_babysitter.adapters.store.local import LocalStore, open_store
from vm_babysitter.domain.blocks import ZERO_HASH
from vm_babysitter.domain.chain import Attempt, ChainState, disk_layers
from vm_babysitter.domain.errors import Damaged, StoreFailed, UnsupportedFormat
from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.point import Method, Point
from vm_babysitter.domain.presence import Seen

GOLDEN = Path(__file__).parents[1] / "data" / "format-1"
PATH = Path("/store/{vm}/point.json")
POINT = line(2)[1]
CONTENT = documents.encode("point", POINT)

times = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(9990, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
st.register_type_strategy(datetime, times)
KINDS: dict[str, type[Any]] = {
    "store": StoreDocument,
    "vm": VmDocument,
    "chain": ChainDocument,
    "attempt": Attempt,
    "lease": Lease,
    "seen": Seen,
    "point": Point,
}


def digest(body: object) -> str:
    """Compute what FORMAT.md says."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3(canonical.encode()).hexdigest()


def envelope(body: object, **change: object) -> bytes:
    whole = {"format": 1, "kind": "point", "digest": digest(body), "body": body, **change}
    return json.dumps(whole).encode()


def body() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CONTENT)["body"]
    return found


def decode(content: bytes) -> Point:
    return documents.decode(content, "point", Point, PATH)


def refused(content: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        decode(content)
    assert caught.value.path == str(PATH)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_document_is_read_as_it_was_written(kind: str, data: st.DataObject) -> None:
    document = data.draw(st.from_type(KINDS[kind]))
    content = documents.encode(kind, document)
    assert documents.decode(content, kind, KINDS[kind], PATH) == document


def test_an_envelope_is_the_documented_one() -> None:
    found = json.loads(CONTENT)
    assert list(found) == ["format", "kind", "digest", "body"]
    assert (found["format"], found["kind"]) == (1, "point")
    assert found["digest"] == digest(found["body"])
    assert CONTENT.endswith(b"\n")
    assert decode(envelope(found["body"])) == POINT


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@example(CONTENT.index(b"1"), ord("1") ^ ord("0"))
@example(0, ord("{"))
def test_no_single_changed_byte_is_taken_for_something_else(place: int, change: int) -> None:
    changed = bytearray(CONTENT)
    changed[place] ^= change
    try:
        found = decode(bytes(changed))
    except (Damaged, UnsupportedFormat):
        return
    assert found == POINT  # as where a blank became a line break


@given(st.integers(0, len(CONTENT) - 1))
def test_every_changed_byte_of_the_body_that_is_no_blank_is_refused(place: int) -> None:
    inside = CONTENT.index(b'"body"')
    changed = bytearray(CONTENT)
    place = max(place, inside)
    if chr(changed[place]).isspace():
        return
    changed[place] ^= 1
    refused(bytes(changed))


@given(st.integers(0, len(CONTENT) - 2))
def test_a_document_that_is_cut_short_is_refused(length: int) -> None:
    refused(CONTENT[: min(length, CONTENT.rindex(b"}"))])


@given(st.binary())
@example(b"")
@example(b"\0" * 4096)
@example(b"[" * 3000)
@example(b'{"a":' * 3000)
@example(b'{"format": 1, "kind": "point", "body": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(b"null")
@example(b"9" * 10_000)
@example(b'{"format": "1"}')
@example(b'{"format": 1}')
@example(b'{"format": 1, "kind": "point", "body": NaN}')
@example(b'{"format": 1, "kind": "point", "body": "\\ud800"}')
@example(b'{"format": 1, "kind": ["point"], "body": {}}')
def test_garbage_is_refused(content: bytes) -> None:
    refused(content)


@given(st.integers(2, 1 << 70))
def test_a_later_format_is_refused_as_such(found: int) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        decode(envelope({"all": "different"}, format=found, digest="?"))
    assert (caught.value.found, caught.value.known) == (found, 1)


def test_a_document_of_another_kind_is_refused() -> None:
    assert "'attempt'" in refused(documents.encode("attempt", attempt()))
    assert "'vm'" in refused(envelope(body(), kind="vm"))


@pytest.mark.parametrize(
    "change",
    [
        {"seq": "1"},
        {"seq": None},
        {"level": "half"},
        {"taken": "yesterday"},
        {"disks": [{}]},
        {"disks": None},
        {"checkpoint": {"name": "x"}},
        {"quiesced": 1},
    ],
)
def test_a_wrong_field_is_refused_though_the_digest_is_right(change: dict[str, Any]) -> None:
    assert next(iter(change)) in refused(envelope({**body(), **change}))


OPTIONAL = ("autostart", "notes", "off", "parent_nonce")
"""Fields of a manifest that older versions did not write."""


@pytest.mark.parametrize("key", [name for name in Point.__slots__ if name not in OPTIONAL])
def test_a_missing_field_is_refused(key: str) -> None:
    rest = body()
    del rest[key]
    assert key in refused(envelope(rest))


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_field_that_older_versions_did_not_write_may_be_missing(key: str) -> None:
    rest = body()
    del rest[key]
    assert decode(envelope(rest)) == POINT


def test_keys_of_a_later_version_are_accepted_and_belong_to_the_digest() -> None:
    more = body()
    more["colour"] = {"of": ["the", "sky"]}
    more["disks"][0]["mood"] = 1.5
    assert decode(envelope(more, extra="x")) == POINT
    refused(envelope({**more, "colour": "grey"}, digest=digest(more)))


def test_a_file_that_is_missing_is_damaged_and_one_that_cannot_be_read_a_failure(
    tmp_path: Path,
) -> None:
    with pytest.raises(Damaged, match="missing"):
        documents.read(tmp_path / "point.json", "point", Point)
    (tmp_path / "folder").mkdir()
    with pytest.raises(Damaged, match="it is no file"):
        documents.read(tmp_path / "folder", "point", Point)
    with pytest.raises(StoreFailed):
        documents.read(tmp_path / ("x" * 300), "point", Point)
    with pytest.raises(StoreFailed):
        documents.write(tmp_path / "none" / "point.json", "point", POINT)


def test_a_document_is_written_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    documents.write(path, "point", point())
    documents.write(path, "point", POINT)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


# --- a folder written by the first version


@pytest.fixture
def golden(tmp_path: Path) -> LocalStore:
    folder = tmp_path / "store"
    shutil.copytree(GOLDEN, folder)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=False, allow_ram=True)


def held() -> dict[str, bytes]:
    """Return what the points of the folder hold of their disk, by their names."""
    size = 5 * 65536 + 512
    other = bytearray(size)
    other[:3], other[131072:131075] = b"one", b"old"
    full = bytearray(other)
    full[:70000], full[5 * 65536 :] = b"A" * 70000, b"tail" * 128
    increment = bytearray(full)
    increment[100:107], increment[131072:131075] = b"changed", bytes(3)
    names = ("20261124T021501Z/0", "20261124T021502Z/0", "20261124T021502Z/1")
    return dict(zip(names, map(bytes, (other, full, increment)), strict=True))


def test_a_folder_of_format_1_is_understood(golden: LocalStore) -> None:
    (vm,) = golden.vms()
    assert golden.id == "00000001-0000-4000-8000-000000000000"
    assert vm.names == ('it\'s a "VM" 猫',)
    old, new = golden.chains(vm.uuid)
    assert (old.state, old.why) == (ChainState.ARCHIVED, "a full backup was asked for")
    assert (new.state, new.why) == (ChainState.LIVE, "")
    assert (old.broken, new.broken, old.unreadable, new.unreadable) == ({}, {}, (), ())
    assert [a.directory for a in new.attempts] == ["000002-inc"]
    assert new.attempts[0].scratch == ("/vms/.vmb-abcdef-vda.scratch",)


def test_the_manifest_of_format_1_is_understood(golden: LocalStore) -> None:
    (vm,) = golden.vms()
    full, increment = (stored.point for stored in golden.chains(vm.uuid)[1].points)
    assert (full.level, full.parent, increment.level, increment.parent) == ("full", None, "inc", 0)
    assert increment.taken == datetime(2026, 11, 24, 2, 15, 3, tzinfo=UTC)
    assert increment.quiesced
    assert increment.checkpoint is not None
    assert increment.checkpoint.name == "vmb-00000003-000001-000003"
    assert increment.checkpoint.disks == ("vda",)
    # Written before each disk's bitmap had a name of its own.
    assert increment.checkpoint.bitmap("vda") == increment.checkpoint.name
    (disk,) = increment.disks
    assert (disk.method, disk.parent) == (Method.BITMAP, "000000-full")
    assert (disk.virtual_size, disk.identity) == (328192, "inode:1")
    assert increment.versions["qemu"] == "7.2.0"


def test_all_files_of_format_1_pass_their_digests(golden: LocalStore) -> None:
    (vm,) = golden.vms()
    for chain in golden.chains(vm.uuid):
        for stored in chain.points:
            found = stored.point
            for disk in found.disks:
                image = golden.image_path(vm.uuid, chain, found, disk)
                index = golden.file_path(vm.uuid, chain, found, disk.index)
                assert golden.check_file(image, disk.digest, image=True).wrong == ""
                assert golden.check_file(index, disk.index_digest, image=False).wrong == ""
            (file,) = found.files
            path = golden.file_path(vm.uuid, chain, found, file.name)
            assert golden.check_file(path, file.digest, image=False).wrong == ""


def test_images_and_indexes_of_format_1_give_back_what_the_disk_held(golden: LocalStore) -> None:
    (vm,) = golden.vms()
    seen = {}
    for chain in golden.chains(vm.uuid):
        for stored in chain.points:
            layers = disk_layers(chain.lineage(stored.point.seq), "vda")
            paths = [golden.image_path(vm.uuid, chain, p, d) for p, d in layers]
            content = seen[f"{chain.directory}/{stored.point.seq}"] = read_layers(paths)
            blocks = [content[i : i + 65536] for i in range(0, len(content), 65536)]
            wanted = [
                h if any(b) else ZERO_HASH
                for h, b in zip(fingerprints(content), blocks, strict=True)
            ]
            with golden.open_index(vm.uuid, chain, layers) as index:
                assert index.expected(0, len(blocks)) == wanted
    assert seen == held()
