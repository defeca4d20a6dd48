"""The backup folder on disk, format 1."""
