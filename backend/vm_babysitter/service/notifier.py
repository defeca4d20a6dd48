"""Users are told what has happened: the ways that the settings name, begun, ended and tried."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import time, tzinfo

from vm_babysitter.config.sections.notify import Notify
from vm_babysitter.domain.errors import BabysitterError, InvalidInput, unthought_of
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job
from vm_babysitter.domain.message import Message, Policy, single
from vm_babysitter.engine.run_pings import RunPings
from vm_babysitter.engine.telling import Teller
from vm_babysitter.ports import Channel, Clock, Journal, Pinger, Publisher
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.views import NotifyTestView

_log = logging.getLogger(__name__)
_TEST_SECONDS = 10.0
"""That each way is given for a try: somebody waits for it."""
UNRAID, WEBHOOK, HEALTH = "unraid", "webhook", "health"
_OFF = {
    UNRAID: "Unraid's notifications are switched off (notify.unraid).",
    WEBHOOK: "No web hook is set up (notify.webhook).",
    HEALTH: "No service that watches over schedules is set up (notify.health).",
}


@dataclass(frozen=True, slots=True)
class Ways:
    """What the composition root knows to tell by."""

    unraid: Channel | None = None
    webhook: Callable[[str], Channel] | None = None
    """Makes one of an address."""
    pinger: Callable[[str], Pinger] | None = None
    """Makes one of an address."""


class Notifier:
    """Implements ``ports.Publisher``: tells another one, and has users told. Waits for nobody."""

    def __init__(
        self,
        publisher: Publisher,
        configuration: Configuration,
        journal: Journal,
        clock: Clock,
        zone: Callable[[], tzinfo],
        ways: Ways,
    ) -> None:
        self._publisher = publisher
        self._configuration = configuration
        self._clock = clock
        self._zone = zone
        self._ways = ways
        finds = {UNRAID: self._unraid, WEBHOOK: self._webhook}
        self._tellers = {
            name: Teller(name, find, journal, clock, self._policy) for name, find in finds.items()
        }
        self._pings = RunPings(self._pinger)
        configuration.on_change(self._changed)

    def start(self) -> None:
        """Begin to tell."""
        for teller in self._tellers.values():
            teller.start()
        self._pings.start()

    def stop(self, seconds: float) -> None:
        """End; what does not answer is left behind, and told after the next start."""
        for teller in self._tellers.values():
            teller.stop(0.0)
        self._pings.stop(0.0)
        for teller in self._tellers.values():
            teller.stop(seconds)

    def job(self, job: Job) -> None:
        """See the port."""
        self._pings.job(job)
        self._publisher.job(job)

    def event(self, event: Event) -> None:
        """See the port."""
        for teller in self._tellers.values():
            teller.wake()
        self._publisher.event(event)

    def troubles(self) -> Iterator[str]:
        """Say why what is to be told does not arrive."""
        told = (*(teller.trouble for teller in self._tellers.values()), self._pings.trouble)
        yield from filter(None, told)

    def test(self, channel: str | None) -> Sequence[NotifyTestView]:
        """Send something by each way, or by one. Raises InvalidInput: there is none of that name.

        Takes some seconds, whatever they do.
        """
        names = tuple(_OFF)
        if channel is not None and channel not in names:
            rule = f"is no way of telling; there are {', '.join(names)}"
            raise InvalidInput("channel", channel, rule)
        found: dict[str, NotifyTestView] = {}
        wanted = names if channel is None else (channel,)
        threads = [
            threading.Thread(target=self._try, args=(name, found), daemon=True) for name in wanted
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * _TEST_SECONDS)
        late = "It does not answer."
        return [found.get(n, NotifyTestView(n, on=True, sent=False, text=late)) for n in wanted]

    # -- how ----------------------------------------------------------------------------------

    def _try(self, name: str, found: dict[str, NotifyTestView]) -> None:
        try:
            why_not = self._send_test(name)
        except BabysitterError as error:
            found[name] = _not_sent(name, error)
            return
        except Exception as error:  # noqa: BLE001 - it is told to the user
            _log.exception("A test by %s failed in a way nobody thought of.", name)
            found[name] = _not_sent(name, unthought_of(name, error))
            return
        if why_not:
            found[name] = NotifyTestView(name, on=False, sent=False, text=why_not)
        else:
            found[name] = NotifyTestView(name, on=True, sent=True, text="A test was sent.")

    def _send_test(self, name: str) -> str:
        """Send one, or return why this way is off."""
        if name == HEALTH:
            pinger = self._pinger()
            if pinger is None:
                return _OFF[HEALTH]
            pinger.ping("success", "A test.", _TEST_SECONDS)
            return ""
        off = self._unraid() is None if name == UNRAID else self._webhook() is None
        if off:
            return _OFF[name]
        return self._tellers[name].test(self._test_message(), _TEST_SECONDS)

    def _test_message(self) -> Message:
        text = "This is a test. Whatever VM Babysitter has to tell arrives like this."
        subject = "VM Babysitter can tell you what happens"
        return single(
            Event(self._clock.now(), "test", Severity.NORMAL, subject, text), self._policy()
        )

    @property
    def _settings(self) -> Notify:
        return self._configuration.settings.notify

    def _policy(self) -> Policy:
        settings = self._settings
        return Policy(settings.success, time.fromisoformat(settings.daily_at), self._zone())

    def _unraid(self) -> Channel | None:
        return self._ways.unraid if self._settings.unraid else None

    def _webhook(self) -> Channel | None:
        url, make = self._settings.webhook, self._ways.webhook
        return make(url) if url and make is not None else None

    def _pinger(self) -> Pinger | None:
        url, make = self._settings.health, self._ways.pinger
        return make(url) if url and make is not None else None

    def _changed(self) -> None:
        for teller in self._tellers.values():
            teller.settings_changed()


def _not_sent(name: str, error: BabysitterError) -> NotifyTestView:
    return NotifyTestView(name, on=True, sent=False, text=error.message, hint=error.hint)
