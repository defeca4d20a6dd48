"""The tables of the journal, by version."""

import sqlite3
from collections.abc import Sequence

VERSIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            vm_uuid TEXT NOT NULL,
            vm_name TEXT NOT NULL,
            options TEXT NOT NULL,
            origin TEXT NOT NULL,
            schedule TEXT NOT NULL,
            try_number INTEGER NOT NULL,
            not_before TEXT,
            state TEXT NOT NULL,
            created TEXT NOT NULL,
            started TEXT,
            finished TEXT,
            waits_for TEXT NOT NULL,
            result TEXT,
            summary TEXT NOT NULL,
            code TEXT NOT NULL,
            hint TEXT NOT NULL,
            point TEXT NOT NULL,
            step TEXT NOT NULL,
            done_bytes INTEGER NOT NULL,
            total_bytes INTEGER NOT NULL
        )""",
        "CREATE INDEX jobs_vm ON jobs (vm_uuid, id)",
        "CREATE INDEX jobs_state ON jobs (state)",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at TEXT NOT NULL,
            kind TEXT NOT NULL,
            severity TEXT NOT NULL,
            subject TEXT NOT NULL,
            text TEXT NOT NULL,
            vm_uuid TEXT NOT NULL,
            vm_name TEXT NOT NULL,
            job_id INTEGER NOT NULL,
            code TEXT NOT NULL
        )""",
        "CREATE INDEX events_at ON events (at)",
        "CREATE TABLE runs (schedule TEXT PRIMARY KEY, due TEXT NOT NULL)",
        # Words about the journal itself; `lost`: why what was known before is gone.
        "CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "INSERT INTO marks VALUES ('lost', 'there was no journal')",
    ),
    (
        "ALTER TABLE events ADD COLUMN key TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX events_key ON events (key)",
        # How events are told: since when which way is on, and how far each event is on it.
        "CREATE TABLE channels (name TEXT PRIMARY KEY, since TEXT NOT NULL)",
        """CREATE TABLE tellings (
            channel TEXT NOT NULL,
            event TEXT NOT NULL,
            told INTEGER NOT NULL,
            PRIMARY KEY (channel, event)
        ) WITHOUT ROWID""",
    ),
)
"""``VERSIONS[n]`` makes version n + 1 of version n. Versions that were released never change."""


def version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0: there are none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, versions: Sequence[Sequence[str]] = VERSIONS) -> None:
    """Bring the tables to the newest version, one after the other, each whole or not at all."""
    for number in range(version(connection), len(versions)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in versions[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
