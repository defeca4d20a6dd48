"""What was measured, as values, tables and JSON. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from vm_babysitter.lib.units import format_bytes

OURS = "vm-babysitter"
"""The tool that all others are compared with."""
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a tool. What could not be measured is None."""

    seconds: float
    """By the clock on the wall, until all that was written is on the disk."""
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = None
    written_bytes: int | None = None
    """Allocated on the disk by what the tool made."""


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one tool at one job; at least one."""

    job: str
    tool: str
    runs: tuple[Run, ...]
    wrong: str = ""
    """What is wrong with the data that came out; empty if nothing is."""
    changed_bytes: int = 0
    """What had changed on the disk, in whole blocks; 0 where that tells nothing."""

    @property
    def middle(self) -> Run:
        """The median of each figure; of figures that some run lacks, None."""
        seconds = median(run.seconds for run in self.runs)
        cpu = _median(run.cpu_seconds for run in self.runs)
        rss = _median(run.peak_rss_bytes for run in self.runs)
        written = _median(run.written_bytes for run in self.runs)
        return Run(seconds, cpu, _whole(rss), _whole(written))

    @property
    def excess(self) -> float | None:
        """Bytes written for each that had changed."""
        written = self.middle.written_bytes
        return written / self.changed_bytes if written and self.changed_bytes else None

    @property
    def span(self) -> tuple[float, float]:
        """The fastest and the slowest run, in seconds."""
        seconds = [run.seconds for run in self.runs]
        return min(seconds), max(seconds)


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table; the job is a column where there are several.

    The ratio is that of the seconds to ours at the same job: above 1 is slower than we are.
    What was written is held against what had changed where that is known of a job.
    """
    several = len({row.job for row in rows}) > 1
    head = ["tool", "seconds", "min-max", "ours = 1.0", "CPU s", "peak memory", "written"]
    cells = [_cells(row, rows) for row in rows]
    if any(row.changed_bytes for row in rows):
        head.append("written / changed")
        for line, row in zip(cells, rows, strict=True):
            line.append(_NONE if row.excess is None else f"{row.excess:.3f}")
    lines = [head, [":--"] + ["--:"] * (len(head) - 1), *cells]
    if several:
        first = ["job", ":--", *(row.job for row in rows)]
        lines = [[job, *line] for job, line in zip(first, lines, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_json(rows: Iterable[Row]) -> str:
    """Return the medians as a JSON list; what was not measured is null."""
    documents = []
    for row in rows:
        run = row.middle
        documents.append(
            {
                "job": row.job,
                "tool": row.tool,
                "seconds": round(run.seconds, 3),
                "cpu_seconds": None if run.cpu_seconds is None else round(run.cpu_seconds, 3),
                "peak_rss_bytes": run.peak_rss_bytes,
                "written_bytes": run.written_bytes,
                **({"changed_bytes": row.changed_bytes} if row.changed_bytes else {}),
                **({"wrong": row.wrong} if row.wrong else {}),
            }
        )
    return json.dumps(documents, indent=1, ensure_ascii=False) + "\n"


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    run, (fastest, slowest) = row.middle, row.span
    return [
        f"{row.tool} **WRONG DATA: {row.wrong}**" if row.wrong else row.tool,
        f"{run.seconds:.2f}",
        f"{fastest:.2f}-{slowest:.2f}",
        _ratio(row, rows),
        _NONE if run.cpu_seconds is None else f"{run.cpu_seconds:.2f}",
        _NONE if run.peak_rss_bytes is None else format_bytes(run.peak_rss_bytes),
        _NONE if run.written_bytes is None else format_bytes(run.written_bytes),
    ]


def _ratio(row: Row, rows: Sequence[Row]) -> str:
    ours = [r.middle.seconds for r in rows if (r.job, r.tool) == (row.job, OURS)]
    return f"{row.middle.seconds / ours[0]:.2f}" if ours and ours[0] else _NONE


def _median(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return median(known) if len(known) == len(found) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
