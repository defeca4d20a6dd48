"""The space of file systems."""

from pathlib import Path

from vm_babysitter.adapters.room import room


def test_a_file_system_tells_its_space(tmp_path: Path) -> None:
    found = room(tmp_path)
    assert 0 < found.free < found.total
    assert found.device == tmp_path.stat().st_dev


def test_a_file_system_that_tells_nothing_does_not_count_as_full() -> None:
    assert room(Path("/proc")).free > 1 << 60
