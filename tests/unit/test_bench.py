"""What the benchmark makes of its measurements; the measuring itself is not judged by a test."""

import json
from dataclasses import replace

from tests.bench.results import OURS, Row, Run, table, to_json

MIB = 1024 * 1024


def row(tool: str, *seconds: float, job: str = "full", wrong: str = "") -> Row:
    runs = tuple(Run(s, s / 2, round(s) * MIB, 3 * MIB) for s in seconds)
    return Row(job, tool, runs, wrong)


def test_the_middle_of_the_runs_counts() -> None:
    assert row(OURS, 9.0, 1.0, 2.0).middle == Run(2.0, 1.0, 2 * MIB, 3 * MIB)
    assert row(OURS, 9.0, 1.0, 2.0).span == (1.0, 9.0)
    assert row(OURS, 1.0, 2.0).middle.seconds == 1.5


def test_what_one_run_lacks_is_not_made_up() -> None:
    lacking = Row("full", OURS, (Run(1.0, 0.5, None, 4), Run(3.0, 0.7, 8, 5)))
    assert lacking.middle == Run(2.0, 0.6, None, 4)


def test_the_table_compares_with_ours() -> None:
    assert table([row(OURS, 2.0), row("other", 3.0, 5.0, 4.0)]).splitlines() == [
        "| tool | seconds | min-max | ours = 1.0 | CPU s | peak memory | written |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| vm-babysitter | 2.00 | 2.00-2.00 | 1.00 | 1.00 | 2 MiB | 3 MiB |",
        "| other | 4.00 | 3.00-5.00 | 2.00 | 2.00 | 4 MiB | 3 MiB |",
    ]


def test_each_job_of_a_table_is_compared_with_ours_at_that_job() -> None:
    rows = [row(OURS, 1.0, job="a"), row("other", 2.0, job="a"), row(OURS, 4.0, job="b")]
    lines = table([*rows, row("other", 2.0, job="b")]).splitlines()
    assert lines[0].startswith("| job | tool |")
    assert [line.split(" | ")[4] for line in lines[2:]] == ["1.00", "2.00", "1.00", "0.50"]


def test_without_ours_there_is_nothing_to_compare_with() -> None:
    assert table([Row("full", "other", (Run(1.0),))]).splitlines()[-1] == (
        "| other | 1.00 | 1.00-1.00 | - | - | - | - |"
    )


def test_wrong_data_cannot_be_overlooked() -> None:
    fast = row("fast", 0.1, wrong="differs from the disk")
    assert "fast **WRONG DATA: differs from the disk**" in table([row(OURS, 1.0), fast])
    assert json.loads(to_json([fast]))[0]["wrong"] == "differs from the disk"


def test_json_has_the_medians() -> None:
    rows = [row(OURS, 1.0, 3.0, 2.0), Row("full", "push", (Run(1.23456, written_bytes=7),))]
    ours, push = json.loads(to_json(rows))
    assert ours == {
        "job": "full",
        "tool": "vm-babysitter",
        "seconds": 2.0,
        "cpu_seconds": 1.0,
        "peak_rss_bytes": 2 * MIB,
        "written_bytes": 3 * MIB,
    }
    assert (push["seconds"], push["cpu_seconds"], push["peak_rss_bytes"]) == (1.235, None, None)


def test_what_was_written_is_held_against_what_had_changed_where_that_is_known() -> None:
    known = replace(row(OURS, 1.0), changed_bytes=2 * MIB)
    lines = table([known, row("other", 1.0)]).splitlines()
    assert lines[0].endswith("| written | written / changed |")
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["1.500 |", "- |"]
    assert json.loads(to_json([known]))[0]["changed_bytes"] == 2 * MIB
