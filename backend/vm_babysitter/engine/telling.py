"""Tells users what has happened, by one channel, each event once.

The journal is the outbox: events come into it with what they tell of, in one transaction. Before
a message is sent the journal notes that its events are being told, after it that they were. Who
is killed between the two finds the events still being told, and asks the channel whether the
message arrived. Where a channel cannot say, it is sent again: twice rather than never.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from vm_babysitter.domain.errors import BabysitterError, NotifyFailed, unthought_of
from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import ENDED, Job
from vm_babysitter.domain.message import (
    OLDEST,
    Message,
    Policy,
    When,
    again,
    gather,
    of_age,
    when_told,
)
from vm_babysitter.ports import Channel, Clock, Journal

WINDOW = 2.0
"""Seconds in which events are gathered before they are told: a flood becomes one message."""
WITHIN = 30.0
"""Seconds that a channel is given for one message."""
_LOOK = 60.0
"""How often the journal is looked at, if nothing tells of an event; what is due by day is told."""
_PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))
"""After a failure; the last one again and again, until what is to be told is too old."""
_MANY = 500
_MANY_JOBS = 2000
_log = logging.getLogger(__name__)


class Teller:
    """Tells by one channel, in a thread of its own: nobody waits for it."""

    def __init__(
        self,
        name: str,
        find: Callable[[], Channel | None],
        journal: Journal,
        clock: Clock,
        policy: Callable[[], Policy],
    ) -> None:
        """``find`` returns the channel as it is set up now; None: it is switched off."""
        self.name = name
        self.trouble = ""
        """Why what is to be told does not arrive; empty if it does."""
        self.window = WINDOW
        self.within = WITHIN
        self._find = find
        self._journal = journal
        self._clock = clock
        self._policy = policy
        self._since: datetime | None = None
        self._failures = 0
        self._retry: datetime | None = None
        self._missing = ""
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"tell-{name}", daemon=True)

    # -- for others -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tell: from now on, if the channel was off before."""
        try:
            self._is_on(self._find())
        except Exception:  # noqa: BLE001 - the thread tries it again
            _log.exception("Notifications by %s could not be set up.", self.name)
        self._thread.start()

    def wake(self) -> None:
        """Say that something has happened, or that it is set up in another way."""
        self._bell.set()

    def settings_changed(self) -> None:
        """Forget that it failed: it may be set up better now."""
        self._retry = None
        self.wake()

    def stop(self, seconds: float) -> None:
        """End; a channel that does not answer is left behind."""
        self._stopping.set()
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def test(self, message: Message, within: float) -> str:
        """Send a message now; return why it is not sent if the channel is off or not there.

        Raises:
            NotifyFailed: it was not sent within ``within`` seconds, or what is sent just now hangs.
        """
        channel = self._find()
        why_not = "It is switched off in the settings." if channel is None else channel.missing()
        if channel is None or why_not:
            return why_not
        if not self._sending.acquire(timeout=within):
            raise NotifyFailed(self.name, "another message is being sent and does not arrive")
        try:
            channel.send(message, within)
        finally:
            self._sending.release()
        return ""

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._bell.wait(_LOOK) and self._stopping.wait(self.window):
                return
            self._bell.clear()
            try:
                self.round()
            except Exception:  # noqa: BLE001 - what is untold stays so, and is told later
                _log.exception("Telling by %s failed in a way nobody thought of.", self.name)

    def round(self) -> None:
        """Tell what there is to tell."""
        channel = self._find()
        if not self._is_on(channel) or channel is None or self._waits():
            return
        policy = self._policy()
        left = self._journal.telling(self.name)
        if left and not self._finish(channel, left, policy):
            return
        now = self._clock.now()
        events = self._untold(now)
        never = [e.key for e in events if when_told(e, policy) is When.NEVER]
        if never:
            self._journal.note_told(self.name, never)
        for message in gather(events, policy, now, self._jobs(events, policy)):
            if self._stopping.is_set():
                return
            self._journal.note_telling(self.name, message.keys)
            if not self._send(channel, message):
                return

    # -- how ----------------------------------------------------------------------------------

    def _is_on(self, channel: Channel | None) -> bool:
        """Note since when the channel is on, or that it is off; return whether it can be used."""
        missing = "" if channel is None else channel.missing()
        if missing and missing != self._missing:
            _log.info("There are no notifications by %s: %s.", self.name, missing)
        self._missing = missing
        known = self._journal.channels()
        if channel is None or missing:
            if self.name in known:
                self._journal.note_channel(self.name, None)
            self._since, self.trouble, self._failures, self._retry = None, "", 0, None
            return False
        if self.name not in known:  # it is new, or the journal is
            self._journal.note_channel(self.name, self._since or self._clock.now())
        self._since = known.get(self.name, self._since or self._clock.now())
        return True

    def _from(self, now: datetime) -> datetime:
        oldest = now - OLDEST
        if self._since is None or self._since > now:  # the clock was ahead then
            return oldest
        return max(self._since, oldest)

    def _untold(self, now: datetime) -> list[Event]:
        """Return all that is untold: an alert may come after many that wait for a summary."""
        limit = _MANY
        while len(found := self._journal.untold(self.name, self._from(now), limit)) == limit:
            limit *= 4
        return found

    def _waits(self) -> bool:
        """Whether it is too early for another try; a clock that was set back shortens that."""
        if self._retry is None:
            return False
        return timedelta() < self._retry - self._clock.now() <= _PAUSES[-1]

    def _finish(self, channel: Channel, left: Sequence[Event], policy: Policy) -> bool:
        """See to events that were being told: by a process that is gone, or in vain."""
        message = again(left, policy, self._jobs(left, policy))
        if channel.was_sent(message):
            self._told(message)
            return True
        old = {event.key for event in of_age(left, self._clock.now())}
        if old:
            _log.error("Given up telling by %s: %d events are too old now.", self.name, len(old))
            self._journal.note_told(self.name, old)
            young = [event for event in left if event.key not in old]
            if not young:
                return True
            message = again(young, policy, self._jobs(young, policy))
        return self._send(channel, message)

    def _send(self, channel: Channel, message: Message) -> bool:
        """Send a message; return whether it need not be sent again."""
        try:
            with self._sending:
                channel.send(message, self.within)
        except BabysitterError as error:
            if not channel.was_sent(message):
                return self._failed(message, error, transient=error.transient)
        except Exception as error:  # noqa: BLE001 - a channel must not end the telling
            _log.exception("Sending by %s failed in a way nobody thought of.", self.name)
            return self._failed(message, unthought_of(self.name, error), transient=True)
        self._told(message)
        return True

    def _told(self, message: Message) -> None:
        self._journal.note_told(self.name, message.keys)
        if self._failures:
            _log.info("Notifications by %s get through again.", self.name)
        self.trouble, self._failures, self._retry = "", 0, None

    def _failed(self, message: Message, error: Exception, *, transient: bool) -> bool:
        self.trouble = str(error)
        if not transient:
            _log.error("Not told by %s: %s. %s", self.name, message.subject, error)
            self._journal.note_told(self.name, message.keys)
            return True
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._retry = self._clock.now() + pause
        _log.warning("Not told by %s yet: %s. %s", self.name, message.subject, error)
        return False

    def _jobs(self, events: Sequence[Event], policy: Policy) -> list[Job]:
        """Return what a summary is made of, where there is going to be one."""
        if all(when_told(event, policy) is not When.DAILY for event in events):
            return []
        return self._journal.jobs(states=ENDED, limit=_MANY_JOBS)
