"""What web services are told: with limits on time, and without secrets in what is said of it."""

from urllib.parse import urlsplit

from vm_babysitter.domain.errors import NotifyFailed, NotifyRefused
from vm_babysitter.engine import left_behind

_NO_ADDRESS = "its address in the settings is no web address"
_ALWAYS = frozenset({408, 425, 429})
"""Refusals that another time may not be any."""


def call(
    channel: str, method: str, url: str, within: float, *, body: bytes = b"", kind: str = ""
) -> None:
    """Send a request; what is answered does not matter, if it is a success.

    No redirect is followed: a POST would become a GET on the way.

    Args:
        channel: whose errors they are.
        method: GET or POST.
        url: where to; it may hold secrets and is in no error.
        within: seconds for the connection, and again for the answer.
        body: what is sent.
        kind: the type of that.

    Raises:
        NotifyFailed, NotifyRefused.
    """
    try:
        # Only where a user has set such a thing up: it takes 10 MB of memory.
        import requests  # noqa: PLC0415
    except ImportError as error:
        raise NotifyRefused(channel, f"this installation lacks a part: {error}") from error
    headers = {"User-Agent": "vm-babysitter", **({"Content-Type": kind} if kind else {})}
    host, connecting = _host(channel, url), min(within, 10.0)

    def ask() -> int:
        with requests.request(
            method,
            url,
            data=body or None,
            headers=headers,
            timeout=(connecting, within),
            allow_redirects=False,
            stream=True,  # what is answered is not read: it might never end
        ) as answer:
            return int(answer.status_code)

    try:
        # Its own limits are those of each line of an answer, of which there may be ever more.
        status = left_behind.within(connecting + within, ask)
    except TimeoutError as error:
        raise NotifyFailed(channel, f"{host} does not answer within {within:g} s") from error
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidHeader,
        UnicodeError,
    ) as error:
        raise NotifyRefused(channel, _NO_ADDRESS) from error
    except requests.exceptions.Timeout as error:
        raise NotifyFailed(channel, f"{host} does not answer within {within:g} s") from error
    except requests.exceptions.SSLError as error:
        raise NotifyFailed(channel, f"the certificate of {host} is not trusted") from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise NotifyFailed(channel, f"{host} cannot be reached") from error
    _judge(channel, host, status)


def _host(channel: str, url: str) -> str:
    try:
        return urlsplit(url).hostname or "the address"
    except ValueError as error:
        raise NotifyRefused(channel, _NO_ADDRESS) from error


def _judge(channel: str, host: str, status: int) -> None:
    if status < 300:  # noqa: PLR2004
        return
    if status < 400:  # noqa: PLR2004
        reason = f"{host} answers {status}: it has moved to another address"
        raise NotifyRefused(channel, reason)
    failed = NotifyFailed if status >= 500 or status in _ALWAYS else NotifyRefused  # noqa: PLR2004
    raise failed(channel, f"{host} answers {status}")
