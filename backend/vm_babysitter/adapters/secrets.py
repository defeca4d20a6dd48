"""Keeps secrets out of logs."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

HIDDEN = "***"
_SHORTEST = 4
"""Shorter ones would hide half of every sentence; they are not worth the name anyway."""
_SHORTEST_PART = 8
"""Of a web address; shorter ones guard nothing, and may be the path of something else."""
_NAMED = re.compile(
    r"""(?ix)
    (\b[\w-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|authorization)\b
        ["']? \s* [=:] \s*)
    (?: "[^"]*" | '[^']*' | (?:bearer|basic)\s+\S+ | [^\s,;&}\])'"]+ )
    """
)
_OPTION = re.compile(
    r"(?i)(--?[\w-]*(?:password|passwd|passphrase|secret|token|api-?key)['\"]?,? +)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,'\"\]]+)"
)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)


class Secrets:
    """What must not be read in a log: what is known to be secret, and what looks like it."""

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()

    def know(self, secrets: Iterable[str]) -> None:
        """Have these hidden, in place of those that were known before.

        Of a web address its path and its query, too: programs name them without the host.
        """
        known = set[str]()
        for secret in secrets:
            known |= {secret} if len(secret) >= _SHORTEST else set()
            known |= {part for part in _parts(secret) if len(part) >= _SHORTEST_PART}
        self._known = tuple(sorted(known, key=len, reverse=True))

    def hide(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._known:
            text = text.replace(secret, HIDDEN)
        text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
        text = _NAMED.sub(rf"\1{HIDDEN}", text)
        return _OPTION.sub(rf"\1{HIDDEN}", text)


def _parts(secret: str) -> Iterator[str]:
    """Return what of a web address is secret by itself."""
    try:
        address = urlsplit(secret)
    except ValueError:
        return
    if address.scheme in {"http", "https"}:
        yield address.path.rstrip("/")
        yield address.query
