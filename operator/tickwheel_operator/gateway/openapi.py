"""The OpenAPI 3.1 document of protocol v1, made from the wire messages.

`python -m tickwheel_operator.gateway.openapi` writes `docs/openapi.json` of a checkout, with `--check` it only tells
whether that file is up to date; the gateway serves the same document at `/openapi.json`. The docstrings of
`gateway.schemas`, of classes and of fields, are the descriptions: they are written once.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tickwheel_operator.gateway import schemas
from tickwheel_operator.gateway.problems import PROBLEMS

__all__ = ["document", "document_json", "main"]

_JSON = dict[str, Any]

_MESSAGES = (
    schemas.PullRequest,
    schemas.PullAnswer,
    schemas.ReportRequest,
    schemas.ReportAnswer,
    schemas.Topology,
    schemas.SubmitRequest,
    schemas.BackfillRequest,
    schemas.SubmitAnswer,
    schemas.Problem,
)

_DESCRIPTION = """\
The protocol between workers, API users and the operator. The worker always calls, the operator never does.

Unknown fields are ignored on both sides, but for requests to start runs and backfills: there they are refused. A field
that is left out has its default. Instants are integers: milliseconds since the Unix epoch, UTC. Fencing tokens and
epochs are 64-bit integers. `docs/protocol.md` tells how a worker behaves.
"""


@functools.cache
def document_json() -> bytes:
    """The document as JSON, indented, with a line feed at its end."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


def document() -> _JSON:
    """The document as plain values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tickwheel gateway protocol",
            "version": "1.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "responses": {_response_name(name): _problem(name) for name in PROBLEMS},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A ServiceAccount token of audience `tickwheel`, as Kubernetes projects it into "
                    "pods; in dev mode the token that the operator was started with.",
                }
            },
        },
    }


def _paths() -> _JSON:
    common = ("bad-request", "unauthenticated", "forbidden", "too-large", "too-many-requests", "internal", "not-ready")
    leader = ("epoch-passed", "not-leader")
    name = {"type": "string", "minLength": 1, "maxLength": 253}
    task = [
        {"name": "namespace", "in": "path", "required": True, "schema": name},
        {
            "name": "name",
            "in": "path",
            "required": True,
            "schema": name,
            "description": "The ScheduledTask's name.",
        },
    ]
    return {
        "/v1/pull": {
            "post": _operation(
                "pull",
                "Ask for work, and wait for it",
                schemas.PullRequest,
                schemas.PullAnswer,
                (*common, "no-such-pool", *leader),
            )
        },
        "/v1/report": {
            "post": _operation(
                "report",
                "Tell what became of attempts, renew leases",
                schemas.ReportRequest,
                schemas.ReportAnswer,
                (*common, "no-such-pool", *leader),
            )
        },
        "/v1/topology": {
            "get": _operation(
                "topology",
                "Which replica leads which partition",
                None,
                schemas.Topology,
                ("unauthenticated", "too-many-requests", "internal", "not-ready"),
            )
        },
        "/v1/tasks/{namespace}/{name}/backfills": {
            "parameters": task,
            "post": _operation(
                "backfill",
                "Make up for the instants of a span of the past",
                schemas.BackfillRequest,
                schemas.SubmitAnswer,
                (*common, "no-such-task", "key-reused", "invalid-parameters", "not-leader", "backlog-full"),
            ),
        },
        "/v1/tasks/{namespace}/{name}/runs": {
            "parameters": task,
            "post": _operation(
                "submit",
                "Start runs of a task, all or none",
                schemas.SubmitRequest,
                schemas.SubmitAnswer,
                (*common, "no-such-task", "overlap", "key-reused", "invalid-parameters", "not-leader", "backlog-full"),
                body_required=False,
            ),
        },
    }


def _operation(
    operation: str,
    summary: str,
    request: type[msgspec.Struct] | None,
    answer: type[msgspec.Struct],
    refusals: Sequence[str],
    *,
    body_required: bool = True,
) -> _JSON:
    by_status: dict[int, list[str]] = {}
    for name in refusals:
        by_status.setdefault(PROBLEMS[name][0], []).append(name)
    responses: _JSON = {
        "200": {
            "description": inspect.cleandoc(answer.__doc__ or ""),
            "content": {"application/json": {"schema": _reference(answer)}},
        }
    }
    for status, names in sorted(by_status.items()):
        responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(names[0])}"}
    result: _JSON = {
        "operationId": operation,
        "summary": summary,
        "description": inspect.cleandoc((request or answer).__doc__ or ""),
        "responses": responses,
    }
    if request is not None:
        result["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": _reference(request)}},
        }
    return result


def _reference(message: type[msgspec.Struct]) -> _JSON:
    return {"$ref": f"#/components/schemas/{message.__name__}"}


def _response_name(problem: str) -> str:
    return "".join(word.capitalize() for word in problem.split("-"))


def _problem(name: str) -> _JSON:
    status, title = PROBLEMS[name]
    response: _JSON = {
        "description": f"{title} (`urn:tickwheel:problem:{name}`).",
        "content": {"application/problem+json": {"schema": _reference(schemas.Problem)}},
    }
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    elif status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        }
    return response


def _schemas() -> _JSON:
    _, components = msgspec.json.schema_components(_MESSAGES, ref_template="#/components/schemas/{name}")
    for name, fields in _field_docstrings().items():
        if name not in components:
            continue
        wire_names = {field.name: field.encode_name for field in msgspec.structs.fields(getattr(schemas, name))}
        properties = components[name]["properties"]
        for field_name, text in fields.items():
            properties[wire_names[field_name]]["description"] = text
    # msgspec knows raw JSON only as "anything".
    components["Lease"]["properties"]["parameters"].update({"type": "object", "default": {}})
    return dict(sorted(components.items()))


def _field_docstrings() -> dict[str, dict[str, str]]:
    """The string under each field of each class of `gateway.schemas`: class name to field name to text."""
    found: dict[str, dict[str, str]] = {}
    for statement in ast.parse(inspect.getsource(schemas)).body:
        if not isinstance(statement, ast.ClassDef):
            continue
        fields = found.setdefault(statement.name, {})
        for field, after in zip(statement.body, statement.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                fields[field.target.id] = inspect.cleandoc(after.value.value)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when the file is (now) up to date, 1 when `--check` finds that it is not."""
    parser = argparse.ArgumentParser(prog="python -m tickwheel_operator.gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the file is out of date")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parents[3] / "docs" / "openapi.json",
        help="the file (default: docs/openapi.json of the checkout)",
    )
    options = parser.parse_args(arguments)
    output: Path = options.output
    wanted = document_json()
    if options.check:
        if output.exists() and output.read_bytes() == wanted:
            return 0
        print(
            f"{output}: is not what gateway/schemas.py says; run `python -m tickwheel_operator.gateway.openapi`",
            file=sys.stderr,
        )
        return 1
    output.write_bytes(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
