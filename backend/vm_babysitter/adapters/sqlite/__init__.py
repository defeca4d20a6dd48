"""SQLite: the journal."""
