"""The map of conditions and disasters in ARCHITECTURE.md names tests that exist, and all rows."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "ARCHITECTURE.md").read_text()
SECTION = TEXT[TEXT.index("\n## Conditions and disasters") :].split("\n## ")[1]
TABLES = re.split(r"\n(?=\| (?:#|situation) )", SECTION)[1:]
OWN = {"conditions": r"\d+", "disasters": r"\d+", "defects": r"[bd]\d+"}


def in_file(file: str) -> list[str]:
    text = "\n".join(path.read_text() for path in TESTS.glob(f"*/test_{file}.py"))
    return re.findall(r"^def test_(\w+)", text, re.MULTILINE)


def named() -> set[tuple[str, str]]:
    found = re.findall(r"`([a-z_]+)::(\w+)`", SECTION)
    return {(str(file), str(words)) for file, words in found if file != "file"}


def has(test: str, words: str) -> bool:
    return re.search(rf"(^|_){words}(_|$)", test) is not None


def test_every_test_that_the_map_names_exists() -> None:
    assert len(named()) > 80
    missing = [n for n in sorted(named()) if not any(has(t, n[1]) for t in in_file(n[0]))]
    assert missing == []


def test_all_rows_are_there() -> None:
    conditions, disasters, defects, _ = TABLES
    numbers = [set(re.findall(r"\w+", row)) for row in _rows(conditions)]
    assert set().union(*numbers) == {str(n) for n in range(1, 35)}
    assert {row for row in _rows(disasters) if row} == {str(n) for n in range(1, 15)}
    ids = set(" ".join(_rows(defects)).split())
    assert ids == {f"B{n}" for n in range(1, 16)} | {f"D{n}" for n in range(1, 13)}


def test_every_row_without_a_test_says_what_brings_it() -> None:
    bare = [line for table in TABLES for line in table.splitlines() if line.endswith("| - |")]
    assert bare
    assert [line for line in bare if "comes with" not in line and "see 7" not in line] == []


def test_every_test_that_is_numbered_after_a_row_is_in_the_map() -> None:
    for file, number in OWN.items():
        pattern = re.compile(rf"(?:disaster_)?({number})_")
        for test in in_file(file):
            match = pattern.match(test)
            assert match, test
            assert (file, match[1]) in named(), test


def _rows(table: str) -> list[str]:
    return [line.split("|")[1].strip() for line in table.splitlines()[2:] if line.startswith("|")]
