"""The API is what its description says: schemathesis looks for what is not."""

import os
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from tests.support.fakes.services import FakeServices
from vm_babysitter.api.app import create_app

EXAMPLES = 200 if os.environ.get("VMB_SOAK") == "1" else 10
ACCEPTED = ["2xx", "401", "403", "404", "409"]
OPTIONS = {
    "seed": 1,
    # How often it generates in vain, and how fast, is not about this API.
    "suppress-health-check": ["filter_too_much", "too_slow"],
    "generation": {"max-examples": EXAMPLES, "no-shrink": True, "database": "none"},
    "checks": {
        # Which ETag is the right one cannot be described, and RFC 6585 has 428 for none.
        "positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "412"]},
        "missing_required_header": {"expected-statuses": ["428", "415", "422"]},
    },
}


@pytest.mark.filterwarnings("default")
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    app = create_app(FakeServices.around(tmp_path))
    schema = schemathesis.openapi.from_wsgi(
        "/api/v1/openapi.json", app, config=SchemathesisConfig.from_dict(OPTIONS)
    )
    found: list[str] = []
    tried: Counter[str] = Counter()
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError | FatalError):
            found.append(f"{event}")
        if isinstance(event, ScenarioFinished):
            tried[event.recorder.label] += len(event.recorder.cases)
            found += [
                f"{event.recorder.label}: {check.name}: {check.failure_info.failure}\n"
                f"{event.recorder.cases[case].value.as_curl_command()}"
                for case, checks in event.recorder.checks.items()
                for check in checks
                if check.failure_info is not None
            ]
    assert found == []
    assert sum(tried.values()) > 500
    assert len([label for label in tried if "/" in label]) == schema.statistic.operations.total
