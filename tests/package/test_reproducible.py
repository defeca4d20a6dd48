"""Two builds of the same downloads are the same, wherever they are made."""

from pathlib import Path

from build.downloads import FOLDER
from build.locks import sha256
from tests.package.conftest import Built, build


def test_a_build_in_another_place_is_the_same_byte_for_byte(built: Built, tmp_path: Path) -> None:
    cache = tmp_path / "another cache, with a longer name: ü"
    (cache / "downloads").mkdir(parents=True)
    for path in FOLDER.iterdir():
        (cache / "downloads" / path.name).symlink_to(path)
    (tmp_path / "again").mkdir()
    again = build(tmp_path / "again", cache)
    assert sha256(again.package) == sha256(built.package)
    assert {p.name: p.read_bytes() for p in again.folder.iterdir()} == {
        p.name: p.read_bytes() for p in built.folder.iterdir()
    }
