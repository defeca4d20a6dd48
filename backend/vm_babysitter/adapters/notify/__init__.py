"""The ways in which users are told what has happened."""
