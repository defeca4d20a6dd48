"""How much space a backup needs and when it is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain.space import (
    Growth,
    Room,
    Scratch,
    find_shortage,
    must_give_up,
    scratch_reserve,
    sees_errors,
    store_floor,
    store_reserve,
)

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
sizes = st.integers(0, 1 << 50)


def scratch(
    free: int, total: int = TIB, size: int = 100 * GIB, device: int = 1, *, cautious: bool = False
) -> Scratch:
    return Scratch(f"/pool{device}/x.scratch", Room(free, total, device), size, cautious)


@pytest.mark.parametrize(
    ("total", "reserve"), [(MIB, 16 * MIB), (10 * GIB, 10 * GIB // 50), (TIB, 2 * GIB)]
)
def test_what_scratch_leaves_free_grows_with_the_file_system(total: int, reserve: int) -> None:
    assert scratch_reserve(total, cautious=False) == reserve
    assert scratch_reserve(total, cautious=True) == 2 * reserve


@pytest.mark.parametrize(("total", "reserve"), [(0, 0), (GIB, GIB // 100), (TIB, 256 * MIB)])
def test_what_a_backup_leaves_free_in_its_folder(total: int, reserve: int) -> None:
    assert store_reserve(total) == reserve


def test_a_folder_on_the_pool_of_the_disks_is_left_what_scratch_needs() -> None:
    store = Room(TIB, TIB, 1)
    assert store_floor(store, []) == 256 * MIB
    assert store_floor(store, [scratch(TIB, device=2)]) == 256 * MIB
    assert store_floor(store, [scratch(TIB, device=2), scratch(TIB)]) == 2 * GIB
    assert store_floor(store, [scratch(TIB, cautious=True), scratch(TIB)]) == 4 * GIB


@pytest.mark.parametrize(
    ("size", "wanted"), [(0, 0), (20 * GIB, GIB), (80 * GIB, 4 * GIB), (TIB, 4 * GIB)]
)
def test_a_backup_begins_with_the_reserve_and_a_part_of_the_disk(size: int, wanted: int) -> None:
    needed = 2 * GIB + wanted
    assert find_shortage([scratch(needed, size=size)]) is None
    short = find_shortage([scratch(needed - 1, size=size)])
    assert short is not None
    assert (short.path, short.free, short.needed) == ("/pool1/x.scratch", needed - 1, needed)
    doubled = find_shortage([scratch(2 * needed - 1, size=size, cautious=True)])
    assert doubled is not None
    assert doubled.needed == 2 * needed


def test_disks_on_one_file_system_share_its_room_and_others_do_not() -> None:
    each = scratch(3 * GIB, size=20 * GIB)
    assert find_shortage([each]) is None
    assert find_shortage([each, each]) is not None
    assert find_shortage([each, scratch(3 * GIB, size=20 * GIB, device=2)]) is None


def test_nothing_to_keep_needs_no_room() -> None:
    assert find_shortage([]) is None


def history(*used: int) -> list[Growth]:
    return [Growth(n / 2, amount) for n, amount in enumerate(used)]


@pytest.mark.parametrize(
    ("free", "used", "given_up"),
    [
        (2 * GIB, (0, 0), False),
        (2 * GIB - 1, (0, 0), True),
        (2 * GIB - 1, (), True),
        (10 * GIB, (0, GIB // 2), False),  # 1 GiB a second: 10 seconds left
        (10 * GIB - 1, (0, GIB // 2), True),
        (10 * GIB - 1, (0, GIB // 2, GIB, 3 * GIB // 2), True),
        (5 * GIB, (0, GIB // 2, GIB // 2, GIB // 2), False),  # a burst that went through memory
        (3 * GIB, (0, GIB // 2, GIB // 2, GIB // 2), True),
        (3 * GIB, (5 * GIB, 0), False),  # it shrank
    ],
)
def test_a_backup_is_given_up_before_the_space_ends(
    free: int, used: tuple[int, ...], given_up: bool
) -> None:
    assert must_give_up(Room(free, TIB, 1), history(*used), cautious=False) is given_up


@given(sizes, sizes, st.lists(sizes, max_size=5))
def test_more_caution_never_means_going_on_longer(free: int, total: int, used: list[int]) -> None:
    room = Room(free, total, 1)
    if must_give_up(room, history(*used), cautious=False):
        assert must_give_up(room, history(*used), cautious=True)


def test_two_looks_in_the_same_moment_tell_nothing() -> None:
    same = [Growth(1.0, 0), Growth(1.0, GIB)]
    assert not must_give_up(Room(3 * GIB, TIB, 1), same, cautious=False)


@pytest.mark.parametrize(
    ("policy", "sees"), [("", False), ("stop", False), ("enospace", False), ("report", True)]
)
def test_only_some_error_policies_show_the_guest_a_full_scratch(policy: str, sees: bool) -> None:
    assert sees_errors(policy) is sees
    assert sees_errors("ignore")
