"""What happens to the backup folder behind our back."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.chaos.house import House, Reference
from tests.chaos.oracle import Oracle
from tests.chaos.words import Skip
from vm_babysitter.domain.errors import BabysitterError


def flip(oracle: Oracle, chance: Random) -> str:
    """Flip one bit of a file of a point: mostly somewhere, sometimes in its header."""

    def change(path: Path) -> None:
        with path.open("r+b") as file:
            size = path.stat().st_size
            place = chance.randrange(size if chance.random() < 0.8 else min(size, 112))
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << chance.randrange(8))]))

    return _spoil(oracle.house, chance, change, "has a bit flipped")


def cut_short(oracle: Oracle, chance: Random) -> str:
    """Cut a file of a point short."""

    def change(path: Path) -> None:
        os.truncate(path, chance.randrange(path.stat().st_size))

    return _spoil(oracle.house, chance, change, "is cut short")


def lose_file(oracle: Oracle, chance: Random) -> str:
    """Delete a file of a point."""
    return _spoil(oracle.house, chance, Path.unlink, "is deleted")


def _spoil(house: House, chance: Random, change: Callable[[Path], None], words: str) -> str:
    reference = _any(house, chance)
    folder = house.store / reference.directory
    files = sorted(p for p in folder.iterdir() if p.is_file() and p not in house.foreign)
    relative = [path.relative_to(house.store) for path in files]
    whole = [path for path in relative if path not in house.damaged]
    if not whole:
        raise Skip
    path = chance.choice(whole)
    if not (house.store / path).stat().st_size:
        raise Skip
    house.damaged[path] = spare = house.spares / f"{len(list(house.spares.iterdir()))}"
    shutil.copyfile(house.store / path, spare)
    change(house.store / path)
    house.backups.sync()
    house.stats["damages"] += 1
    return f"{path.name} of {reference.name} {words}"


def heal(oracle: Oracle, chance: Random) -> str:
    """Put a file of a point back as it was, and have the point verified: damage is remembered."""
    house = oracle.house
    if not house.damaged or house.backups.full:
        raise Skip
    path = chance.choice(sorted(house.damaged))
    spare = house.damaged.pop(path)
    if not (house.store / path.parent).is_dir():
        raise Skip
    shutil.copyfile(spare, house.store / path)
    house.backups.sync()
    for reference in house.present():
        if reference.directory == path.parent:
            with suppress(BabysitterError):
                house.app().verify().one(reference.key[0], reference.name)
    return f"{path.name} of {path.parent} is put back as it was, and verified"


def lose_point(oracle: Oracle, chance: Random) -> str:
    """Delete the folder of a point."""
    reference = _any(oracle.house, chance)
    _remove(oracle.house, [reference])
    oracle.house.stats["damages"] += 1
    return f"the folder of {reference.name} is deleted"


def rename_point(oracle: Oracle, chance: Random) -> str:
    """Give the folder of a point another name."""
    house = oracle.house
    reference = _any(house, chance)
    name = chance.choice((f"{reference.directory.name} copy", f"old {reference.directory.name}"))
    new = reference.directory.with_name(name)
    if (house.store / new).exists():
        raise Skip
    (house.store / reference.directory).rename(house.store / new)
    house.renamed[reference.directory] = new
    house.backups.sync()
    return f"the folder of {reference.name} is called {name!r}"


def lose_series(oracle: Oracle, chance: Random) -> str:
    """Delete all points of a series; only the mark of an attempt would tell what that left."""
    house = oracle.house
    folder = _any(house, chance).directory.parent
    if any((house.store / folder).glob("*.attempt.json")):
        raise Skip
    _remove(house, [r for r in house.present() if r.directory.parent == folder])
    shutil.rmtree(house.store / folder)
    house.backups.sync()
    return f"the series {folder.name} is deleted"


def _remove(house: House, references: list[Reference]) -> None:
    for reference in references:
        house.gone.add(reference.key)
        shutil.rmtree(house.store / reference.directory, ignore_errors=True)  # it may be renamed
        for path in [p for p in house.damaged if p.is_relative_to(reference.directory)]:
            del house.damaged[path]
        for copy in reference.disks.values():
            copy.unlink()
    house.backups.sync()


def lose_notes(oracle: Oracle, chance: Random) -> str:
    """Delete a file that the points need not: which VM, which series, which store."""
    path = _any_note(oracle.house, chance)
    path.unlink()
    oracle.house.backups.sync()
    return f"{path.name} in {path.parent.name} is deleted"


def spoil_notes(oracle: Oracle, chance: Random) -> str:
    """Flip a bit of such a file; one of the store itself is then moved away, as we say."""
    house = oracle.house
    path = _any_note(house, chance)
    content = bytearray(path.read_bytes())
    if not content:
        raise Skip
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    if path.name == "store.json":
        path.unlink()
    house.backups.sync()
    return f"{path.name} in {path.parent.name} has a bit flipped"


def _any_note(house: House, chance: Random) -> Path:
    """Choose a note beside which there are points, which tell the same."""
    names = ("store.json", "lease.json", "*/vm.json", "*/*/chain.json", "*/*/current.json")
    with_points = {
        f for r in house.present() for f in (r.directory.parent, *r.directory.parents[1:])
    }
    found = sorted(path for name in names for path in house.store.glob(name))
    found = [path for path in found if path.parent.relative_to(house.store) in with_points]
    if not found:
        raise Skip
    return chance.choice(found)


def touch(oracle: Oracle, chance: Random) -> str:
    """Change the times of some files."""
    files = sorted(path for path in oracle.house.store.rglob("*") if path.is_file())
    if not files:
        raise Skip
    chosen = chance.sample(files, min(len(files), 5))
    for path in chosen:
        when = chance.randrange(10**9, 2 * 10**9)
        os.utime(path, (when, when))
    return f"the times of {len(chosen)} files change"


def drop_foreign(oracle: Oracle, chance: Random) -> str:
    """Put something of others somewhere into the store."""
    house = oracle.house
    folders = sorted(path for path in house.store.rglob("*") if path.is_dir())
    folders = [f for f in folders if not any(f.is_relative_to(p) for p in house.foreign)]
    if not folders or house.backups.full:
        raise Skip
    folder = chance.choice(folders)
    name = chance.choice(("Thumbs.db", ".DS_Store", "vda.qcow2~", "notes, old.txt", "a folder"))
    path = folder / name
    if path.exists():
        raise Skip
    if name == "a folder":
        path.mkdir()
    else:
        path.write_text("not ours")
    house.foreign.add(path)
    house.backups.sync()
    return f"{name!r} is put into {folder.name}"


def _any(house: House, chance: Random) -> Reference:
    present = [r for r in house.present() if (house.store / r.directory).is_dir()]
    present.sort(key=lambda reference: (reference.directory, reference.key))
    if not present:
        raise Skip
    return chance.choice(present)
