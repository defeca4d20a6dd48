"""A journal that was lost is made anew from the restore points that there are."""

import logging
from collections.abc import Callable

from vm_babysitter.domain.errors import BabysitterError, StoreRefused
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.steady_journal import SteadyJournal
from vm_babysitter.ports import Store

_log = logging.getLogger(__name__)
_MANY_POINTS = 10_000


def make_up(journal: SteadyJournal, open_store: Callable[[], Store]) -> bool:
    """Have the journal tell of the past, if it is lost; return whether it does so only now.

    What cannot be read now is to be tried again. Never fails.
    """
    if not journal.lost():
        return False
    try:
        journal.rebuild(known_points(open_store()))
    except StoreRefused:  # no backups yet
        return False
    except (BabysitterError, OSError) as error:
        _log.warning("The history cannot be made up from the backup folder: %s", error)
        return False
    return not journal.lost()


def known_points(store: Store) -> list[KnownPoint]:
    """Return the newest restore points of a backup folder, in order."""
    found = [
        KnownPoint(
            vm.uuid,
            vm.names[-1],
            point_name(chain, stored.point.seq),
            stored.point.started,
            stored.point.finished,
            stored.point.warnings,
        )
        for vm in store.vms()
        for chain in store.chains(vm.uuid)
        for stored in chain.points
    ]
    return sorted(found, key=lambda point: point.started)[-_MANY_POINTS:]
