"""Documents as JSON that everybody can read."""

import json
import re
from typing import Any

import msgspec

_SURROGATE = re.compile("[\ud800-\udfff]")


def as_json(document: Any) -> bytes:
    """Return a document as JSON in UTF-8.

    Names of files need not be UTF-8. What of them is not becomes a replacement character:
    readers such as PHP refuse a whole document because of one lone surrogate.
    """
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(document, str_keys=True)
        return _SURROGATE.sub(
            "\N{REPLACEMENT CHARACTER}", json.dumps(plain, ensure_ascii=False)
        ).encode()
