"""The settings: what there is to set, what is allowed, and the file they lie in."""
