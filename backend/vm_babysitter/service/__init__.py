"""The daemon's own: its parts put together, what jobs do, and the answers to the API."""
