"""Figures for monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class MetricKind(StrEnum):
    """How a figure behaves."""

    GAUGE = "gauge"
    """It goes up and down."""
    COUNTER = "counter"
    """It only grows, until the daemon starts again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure, for each set of labels."""

    name: str
    """``vm_babysitter_…``, with its unit at the end: ``_bytes``, ``_seconds``, ``_total``."""
    help: str
    kind: MetricKind
    samples: tuple[Sample, ...]
