"""The OpenAPI document is valid, complete and up to date."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from openapi_spec_validator import validate
from tests.unit.gateway.scripted import PULL, WORKER

from tickwheel_operator.gateway import openapi
from tickwheel_operator.gateway.problems import PROBLEMS

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_document_is_valid_openapi():
    validate(openapi.document())


def test_the_committed_document_is_up_to_date():
    assert (CHECKOUT / "docs" / "openapi.json").read_bytes() == openapi.document_json()


def test_check_finds_a_document_that_drifted(tmp_path, capsys):
    output = tmp_path / "openapi.json"
    assert openapi.main(["--check", "--output", str(output)]) == 1
    assert openapi.main(["--output", str(output)]) == 0
    assert openapi.main(["--check", "--output", str(output)]) == 0
    output.write_bytes(output.read_bytes() + b" ")
    assert openapi.main(["--check", "--output", str(output)]) == 1
    assert "gateway/schemas.py" in capsys.readouterr().err


def test_the_docstrings_of_fields_are_their_descriptions():
    lease = openapi.document()["components"]["schemas"]["Lease"]["properties"]
    assert lease["scheduledMs"]["description"] == "The run's logical instant."


def test_every_problem_that_an_operation_may_answer_is_described():
    document = openapi.document()
    assert len(document["components"]["responses"]) == len(PROBLEMS)
    pull = document["paths"]["/v1/pull"]["post"]["responses"]
    assert set(pull) == {"200", "400", "401", "403", "404", "409", "413", "421", "429", "500", "503"}


@pytest.mark.parametrize(
    ("name", "message", "valid"),
    [
        ("PullRequest", PULL, True),
        ("PullRequest", {**PULL, "handlers": ["h"] * 257}, False),
        ("PullRequest", {**PULL, "free": -1}, False),
        ("ReportRequest", {"worker": WORKER, "results": [{"token": 1, "value": {"a": 1}}]}, True),
        ("ReportRequest", {"succeeded": [1]}, False),
        ("PullRequest", {**PULL, "ofANewerWorker": 1}, True),
        ("SubmitRequest", {"runs": [{"idempotencyKey": "k" * 201}]}, False),
        ("SubmitRequest", {"runs": [{"delayMs": 1}]}, True),
        ("SubmitRequest", {"runs": [{"delay": "1s"}]}, False),
        ("BackfillRequest", {"fromMs": 0, "toMs": 1, "max_parallel": 1}, False),
    ],
)
def test_the_schemas_accept_what_the_gateway_accepts(name, message, valid):
    components = openapi.document()["components"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(json.dumps(message))) is valid
