"""What `make release-check` lets through, and what not."""

import io
import shutil
import tarfile
from dataclasses import fields, replace
from pathlib import Path

import pytest

from build import content, documents, release
from build.documents import Package
from build.lock import wanted
from build.locks import canonical, read_debs, read_requirements, sha256
from build.parts import DEBIAN
from build.places import HOME, REPOSITORY
from build.release import Publisher
from build.release_check import complaints, complaints_of_changes
from tests.package.conftest import Built
from tests.package.test_plugin_file import PUBLISHER

VERSION = release.version()
_LOG = f"## {VERSION}\n- new\n"


def publish(folder: Path, package: Path, publisher: Publisher = PUBLISHER) -> list[str]:
    """What is complained of, once documents are rendered for it."""
    rendered = documents.render(Package(VERSION, sha256(package)), publisher, _LOG)
    documents.write(rendered, folder)
    return told(folder, publisher)


def told(folder: Path, publisher: Publisher = PUBLISHER) -> list[str]:
    found = complaints(folder, folder, publisher)
    # Packages for tests are compressed less, and what is not released has no version yet.
    return [s for s in found if not s.startswith("CHANGELOG") and "bytes are too many" not in s]


def pack(folder: Path, more: dict[str, bytes] | None = None) -> Path:
    """Make a package with the least that has to be in it, and more."""
    package = folder / release.package_file(VERSION)
    with tarfile.open(package, "w:xz") as archive:
        for name, text in {**dict.fromkeys(content.REQUIRED, b""), **(more or {})}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(text), release.moment(VERSION), 0o755
            archive.addfile(entry, io.BytesIO(text))
    return package


def test_what_was_built_may_be_published(built: Built, tmp_path: Path) -> None:
    package = Path(shutil.copy(built.package, tmp_path))
    found = publish(tmp_path, package)
    # Of what has to be there, it has all that this checkout has.
    trees = (REPOSITORY / "plugin", REPOSITORY / "webgui")
    names = {path.name for tree in trees for path in tree.rglob("*")}
    absent = [n for n in content.REQUIRED if n.rpartition("/")[2] not in names]
    assert found == [f"{name}: is not there" for name in sorted(absent)]


def test_while_nobody_publishes_it_it_says_what_is_missing(tmp_path: Path) -> None:
    package = pack(tmp_path)
    assert publish(tmp_path, package) == []
    found = publish(tmp_path, package, Publisher())
    assert found == [f"build/release.toml: {f.name} is empty" for f in fields(Publisher)]
    found = publish(tmp_path, package, replace(PUBLISHER, icon_url="", support=""))
    assert found == [
        "build/release.toml: support is empty",
        "build/release.toml: icon_url is empty",
    ]


def test_nothing_built_is_told(tmp_path: Path) -> None:
    (found,) = told(tmp_path)
    assert "run `make package`" in found


@pytest.mark.parametrize("key", [f.name for f in fields(Publisher) if f.name != "author"])
def test_addresses_are_looked_at(tmp_path: Path, key: str) -> None:
    found = publish(tmp_path, pack(tmp_path), replace(PUBLISHER, **{key: "http://not safe"}))
    assert found
    assert all("https://" in complaint for complaint in found)


def test_documents_of_another_build_are_told(tmp_path: Path) -> None:
    publish(tmp_path, pack(tmp_path))
    pack(tmp_path, {f"{HOME}/parts.json": b"other"})
    found = told(tmp_path)
    assert found
    assert all("the digest is not that of" in complaint for complaint in found)
    pack(tmp_path)
    assert told(tmp_path, replace(PUBLISHER, author="somebody else"))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("usr/local/emhttp/plugins/other/x.php", b"", "not in the list"),
        ("usr/local/vm-babysitter/backend/vm_babysitter/x.sh", b"", "not in the list"),
        (f"{HOME}/backend/vm_babysitter/x.py", f"# {REPOSITORY}/x".encode(), "is inside"),
    ],
)
def test_what_does_not_belong_into_it(
    tmp_path: Path, name: str, text: bytes, complaint: str
) -> None:
    (found,) = publish(tmp_path, pack(tmp_path, {name: text}))
    assert found.startswith(name)
    assert complaint in found


def test_libraries_that_unraid_may_lack_are_told(tmp_path: Path) -> None:
    name = f"{HOME}/python/lib/python3.11/lib-dynload/x.so"
    (found,) = publish(tmp_path, pack(tmp_path, {name: Path("/bin/ls").read_bytes()}))
    assert "needs libselinux.so.1" in found


def test_entries_are_looked_at_one_by_one() -> None:
    def entry(name: str, **what: object) -> tarfile.TarInfo:
        made = tarfile.TarInfo(name)
        for key, value in {"mtime": 5, **what}.items():
            setattr(made, key, value)
        return made

    def found(*entries: tarfile.TarInfo) -> list[str]:
        required = [entry(name) for name in content.REQUIRED]
        return list(content.complaints_of_entries([*required, *entries], 5))

    command = "usr/local/vm-babysitter/parts.json"
    event = "usr/local/emhttp/plugins/vm-babysitter/event/started"
    assert found(entry(command), entry(event, mode=0o755)) == []
    assert len(found(entry(command, type=tarfile.SYMTYPE, linkname="x"))) == 1
    assert len(found(entry(command, uid=7))) == 1
    assert len(found(entry(command, mtime=6))) == 1
    assert len(found(entry(command, mode=0o4755))) == 1
    assert len(found(entry(command, mode=0o666))) == 1
    assert len(found(entry(event, mode=0o644))) == 1
    assert len(list(content.complaints_of_entries([], 5))) == len(content.REQUIRED)


@pytest.mark.parametrize(
    ("changelog", "right"),
    [
        ("## 2026.12.02\n- x\n## 2026.12.01a\n- x\n## 2026.12.01\n- x\n", True),
        ("## Unreleased\n## 2026.12.02\n- x\n", True),
        ("## Unreleased\n- y\n## 2026.12.02\n- x\n", False),
        ("## 2026.12.02\n## 2026.12.01\n- x\n", False),
        ("## 2026.12.02\n- x\n## 2026.12.03\n- x\n", False),
        ("## 2026.12.01\n- x\n", False),
        ("## 2026.12.02\n- x\n## 1.0\n- x\n", False),
        ("", False),
    ],
)
def test_the_changelog_has_each_version_once_in_order(changelog: str, right: bool) -> None:
    assert (list(complaints_of_changes("2026.12.02", changelog)) == []) is right


def test_the_locks_hold_what_is_wanted() -> None:
    """If this fails, `make lock` is what is missing."""
    locked = {requirement.name for requirement in read_requirements()}
    names = {canonical(line.split(">")[0].split("=")[0].split("<")[0].strip()) for line in wanted()}
    assert names <= locked
    debs = {(deb.use, deb.name) for deb in read_debs()}
    assert debs == {(use, name) for use, names in DEBIAN.items() for name in names}
