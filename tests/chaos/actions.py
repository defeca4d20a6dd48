"""The table of all actions: what may happen, how often, and how it is done.

An action is a function of a house and a source of chance; it returns what it did, in words, or
raises Skip where it does not apply. So any of them can be left out of a story.
"""

from collections.abc import Callable
from random import Random

from tests.chaos import (
    acts_checks,
    acts_damage,
    acts_host,
    acts_images,
    acts_killed,
    acts_ours,
    acts_vm,
)
from tests.chaos.oracle import Oracle

Act = Callable[[Oracle, Random], str]

WEIGHTS: dict[Act, int] = {
    acts_vm.write: 60,
    acts_vm.start: 34,
    acts_vm.stop: 8,
    acts_vm.kill_qemu: 4,
    acts_vm.pause: 2,
    acts_vm.resume: 2,
    acts_vm.rename: 2,
    acts_vm.add_disk: 2,
    acts_vm.remove_disk: 2,
    acts_vm.grow: 3,
    acts_vm.shrink: 3,
    acts_images.snapshot: 8,
    acts_images.commit: 6,
    acts_images.pull: 4,
    acts_images.revert: 5,
    acts_images.keep_inside: 5,
    acts_images.go_back_inside: 8,
    acts_images.drop_inside: 2,
    acts_images.copy: 6,
    acts_images.put_back: 8,
    acts_images.convert: 4,
    acts_images.convert_back: 4,
    acts_ours.backup: 30,
    acts_ours.backup_while_written: 16,
    acts_ours.backup_disturbed: 8,
    acts_killed.backup_killed: 16,
    acts_killed.backup_killed_in_undo: 4,
    acts_killed.backup_failing: 5,
    acts_ours.backup_stopped: 3,
    acts_checks.verify: 4,
    acts_checks.status: 4,
    acts_checks.backup_as_planned: 8,
    acts_checks.repair: 5,
    acts_host.cut_power: 2,
    acts_host.cut_power_in_backup: 5,
    acts_host.reboot: 3,
    acts_host.restart_libvirtd: 2,
    acts_host.set_clock: 4,
    acts_host.fill_store: 2,
    acts_host.free_store: 16,
    acts_damage.flip: 6,
    acts_damage.cut_short: 2,
    acts_damage.lose_file: 3,
    acts_damage.lose_point: 2,
    acts_damage.rename_point: 2,
    acts_damage.lose_series: 1,
    acts_damage.lose_notes: 4,
    acts_damage.spoil_notes: 2,
    acts_damage.touch: 2,
    acts_damage.drop_foreign: 2,
    acts_damage.heal: 8,
}
ACTIONS: dict[str, Act] = {act.__name__: act for act in WEIGHTS}
