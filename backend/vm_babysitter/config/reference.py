"""The reference of the settings: ``python -m vm_babysitter.config.reference > SETTINGS.md``."""

import sys
from collections.abc import Iterator

from vm_babysitter.config.describe import KeyInfo, sections
from vm_babysitter.config.migrate import VERSION
from vm_babysitter.config.shape import quoted, shown

_HEAD = f"""# Settings

*Made by `python -m vm_babysitter.config.reference`; change the declarations in
`backend/vm_babysitter/config/sections/` instead.*

One JSON file, `{{"version": {VERSION}, …}}`, on Unraid
`/boot/config/plugins/vm-babysitter/settings.json`. What is not in it has its default. All mistakes
are told at once, and nothing wrong is ever saved. Keys that this version does not know are kept.
Amounts of bytes may be written as `"50 MiB"`; K, M, G and T are powers of 1024.
`[]` stands for each entry of a list, `<VM>` for the name or UUID of a VM.
"""


def markdown() -> str:
    """Return the reference as Markdown."""
    parts = [_HEAD]
    for section in sections():
        rows = "\n".join(_rows(section.keys))
        parts.append(f"## {section.name}\n\n{section.description}\n\n{rows}\n")
    return "\n".join(parts)


def _rows(keys: tuple[KeyInfo, ...]) -> Iterator[str]:
    yield "| key | value | default | what it does | example |"
    yield "|---|---|---|---|---|"
    for key in keys:
        cells = (
            f"`{key.path}`",
            _cell(_value(key)),
            _default(key),
            _cell(key.description + (" *Filled by the program.*" if key.own else "")),
            "" if key.example is None else f"`{_cell(quoted(key.example))}`",
        )
        yield f"| {' | '.join(cells)} |"


def _value(key: KeyInfo) -> str:
    unit = "" if not key.unit or "bytes" in key.type + key.unit else f" ({key.unit})"
    return f"{key.type}{unit}"


def _default(key: KeyInfo) -> str:
    if key.required:
        return "must be there"
    if key.default is None and key.path.startswith("per_vm."):
        return "as for all"
    return f"`{_cell(quoted(key.default))}`{_in_words(key)}"


def _in_words(key: KeyInfo) -> str:
    words = shown(key.default, key.unit)
    return "" if words == quoted(key.default) or not key.default else f" ({words})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
