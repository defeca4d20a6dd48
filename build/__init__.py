"""Makes the package for Unraid, and the documents around it, from Debian's packages and PyPI's."""
