"""How far events are told, as rows of the journal's database."""

from collections.abc import Mapping
from datetime import datetime
from sqlite3 import Connection

from vm_babysitter.adapters.sqlite.rows import (
    EVENT_COLUMNS,
    event_of,
    moment,
    number,
    readable,
)
from vm_babysitter.domain.event import Event
from vm_babysitter.domain.outbox import Outbox

# The columns are constants of ours; every value goes through a place holder.
_UNTOLD = f"""SELECT {EVENT_COLUMNS} FROM events WHERE key <> '' AND at >= ? AND NOT EXISTS
    (SELECT 1 FROM tellings WHERE channel = ? AND event = events.key)
    ORDER BY at, id LIMIT ?"""  # noqa: S608
_TELLING = f"""SELECT {EVENT_COLUMNS} FROM events WHERE key IN
    (SELECT event FROM tellings WHERE channel = ? AND told = 0) ORDER BY at, id"""  # noqa: S608
_PUT = "INSERT OR REPLACE INTO tellings (channel, event, told) VALUES (?, ?, ?)"
_PRUNE = "DELETE FROM tellings WHERE event NOT IN (SELECT key FROM events)"


def channels(connection: Connection) -> dict[str, datetime]:
    """Return the channels that are on, and since when."""
    rows = connection.execute("SELECT name, since FROM channels").fetchall()
    return dict(readable(rows, lambda r: (r["name"], datetime.fromisoformat(r["since"]))))


def put_channel(connection: Connection, name: str, since: datetime | None) -> None:
    """Keep since when a channel is on; None: it is off."""
    if since is None:
        connection.execute("DELETE FROM channels WHERE name = ?", (name,))
    else:
        values = (name, moment(since))
        connection.execute("INSERT OR REPLACE INTO channels (name, since) VALUES (?, ?)", values)


def untold(connection: Connection, channel: str, since: datetime, limit: int) -> list[Event]:
    """Return events from a moment on that nothing is noted of, oldest first."""
    rows = connection.execute(_UNTOLD, (moment(since), channel, number(limit))).fetchall()
    return readable(rows, event_of)


def telling(connection: Connection, channel: str) -> list[Event]:
    """Return the events that are being told, oldest first."""
    return readable(connection.execute(_TELLING, (channel,)).fetchall(), event_of)


def put(connection: Connection, told: Mapping[tuple[str, str], bool]) -> None:
    """Keep how far events are told, by channel and key."""
    rows = [(channel, key, int(done)) for (channel, key), done in told.items()]
    connection.executemany(_PUT, rows)


def put_all(connection: Connection, outbox: Outbox) -> None:
    """Keep what was noted elsewhere."""
    for name, since in outbox.since.items():
        put_channel(connection, name, since)
    put(connection, outbox.told)


def prune(connection: Connection) -> None:
    """Forget what was noted of events that are forgotten."""
    connection.execute(_PRUNE)
