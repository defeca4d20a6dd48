"""Unraid: what the server is busy with, and how it is told things."""
