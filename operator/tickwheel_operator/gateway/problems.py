"""Errors of the gateway, as RFC 9457 documents (`application/problem+json`).

Everything that refuses a request raises `GatewayProblem`; `gateway.server` turns it into the answer. The types are
stable, for programs; title and detail are for people, and say what was wrong, where, and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import ValidationError, inspect

from tickwheel_operator.gateway.schemas import Problem

__all__ = [
    "PROBLEMS",
    "GatewayProblem",
    "backlog_full",
    "bad_request",
    "epoch_passed",
    "explain",
    "invalid_parameters",
    "key_reused",
    "ledger_replaced",
    "no_such_run",
    "no_such_task",
    "not_leader",
    "not_ready",
    "overlap",
    "too_large",
]

_URN = "urn:tickwheel:problem:"

PROBLEMS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request is not valid"),
    "unauthenticated": (401, "The caller is not authenticated"),
    "forbidden": (403, "The caller may not do this"),
    "not-found": (404, "There is no such path"),
    "no-such-pool": (404, "There is no such worker pool"),
    "no-such-task": (404, "There is no such task"),
    "no-such-run": (404, "There is no such run"),
    "method-not-allowed": (405, "The path does not have this method"),
    "overlap": (409, "Other runs of the task are open"),
    "epoch-passed": (409, "The caller has seen a newer leader"),
    "ledger-replaced": (409, "The operator has another ledger than the caller knows"),
    "too-large": (413, "The request is too large"),
    "not-leader": (421, "This replica is not the leader"),
    "key-reused": (422, "The idempotency key stands for another request"),
    "invalid-parameters": (422, "The handler does not take these parameters"),
    "backlog-full": (429, "The pool's backlog is full"),
    "too-many-requests": (429, "The caller asks too often"),
    "internal": (500, "The operator failed"),
    "not-ready": (503, "The operator is not ready"),
}
"""Name to status and title: all the problems that the protocol knows."""


class GatewayProblem(Exception):
    """A request that is refused. `name` is a key of `PROBLEMS`."""

    def __init__(self, name: str, detail: str, *, leader: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail
        self.leader = leader
        self.headers: Mapping[str, str] = headers or {}
        self.status = PROBLEMS[name][0]

    def document(self) -> Problem:
        """The body of the answer."""
        status, title = PROBLEMS[self.name]
        return Problem(type=_URN + self.name, title=title, status=status, detail=self.detail, leader=self.leader)


def bad_request(detail: str) -> GatewayProblem:
    return GatewayProblem("bad-request", detail)


def too_large(what: str, *, size_bytes: int | None, limit_bytes: int) -> GatewayProblem:
    """`what` names the part, such as "the body"."""
    size = f"has {size_bytes:,} bytes" if size_bytes is not None else "is larger"
    return GatewayProblem("too-large", f"{what} {size}; up to {limit_bytes:,} bytes are allowed")


def no_such_task(detail: str) -> GatewayProblem:
    return GatewayProblem("no-such-task", detail)


def no_such_run(detail: str) -> GatewayProblem:
    return GatewayProblem("no-such-run", detail)


def epoch_passed(*, seen: int, ours: int) -> GatewayProblem:
    return GatewayProblem(
        "epoch-passed",
        f"epoch: the request has seen epoch {seen}, this replica leads epoch {ours}: another replica has taken over; "
        f"ask GET /v1/topology of the Service for the leader",
    )


def ledger_replaced(*, seen: str, ours: str) -> GatewayProblem:
    return GatewayProblem(
        "ledger-replaced",
        f"ledger: the request is of ledger {seen}, this replica leads ledger {ours}: the ledger of before was lost, or "
        "the worker was with another operator. Its leases, tokens and epoch mean nothing here: stop what runs, draw a "
        "new instance, and pull without ledger, epoch and received",
    )


def not_leader(leader_url: str) -> GatewayProblem:
    where = f"send it to {leader_url}" if leader_url else "no leader is known yet, ask again in a second"
    headers = {} if leader_url else {"Retry-After": "1"}
    return GatewayProblem("not-leader", f"this replica does not lead: {where}", leader=leader_url, headers=headers)


def overlap(detail: str) -> GatewayProblem:
    return GatewayProblem("overlap", detail)


def key_reused(detail: str) -> GatewayProblem:
    return GatewayProblem("key-reused", detail)


def invalid_parameters(detail: str) -> GatewayProblem:
    return GatewayProblem("invalid-parameters", detail)


def backlog_full(detail: str) -> GatewayProblem:
    return GatewayProblem("backlog-full", detail, headers={"Retry-After": "1"})


def not_ready(detail: str, *, retry_after_s: int = 1) -> GatewayProblem:
    return GatewayProblem("not-ready", detail, headers={"Retry-After": str(retry_after_s)})


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?(.*)", re.DOTALL)
_PATH = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")


def explain(error: Exception, message: object = None) -> str:
    """The decoder's complaint as text for a person: the field's path first, then what is wrong and what is allowed.
    `message` is the type that was to be read."""
    if isinstance(error, RecursionError):
        return "the body is not usable: its JSON is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"the body is not UTF-8: invalid byte at offset {error.start} of a string"
    text = str(error)
    if not isinstance(error, ValidationError):
        return f"the body is not valid JSON: {text.removeprefix('JSON is malformed: ')}"
    path = "the body"
    if found := _PATH.search(text):
        path = found[1] or path
        if "`key` in" in found[0]:
            path = f"a key of {path}"
        text = text[: found.start()]
    if missing := re.fullmatch(r"Object missing required field `([^`]+)`", text):
        field = missing[1] if path == "the body" else f"{path}.{missing[1]}"
        return f"{field}: is required, and missing"
    if unknown := re.fullmatch(r"Object contains unknown field `([^`]+)`", text):
        inner = "" if path == "the body" else path
        field = f"{inner}.{unknown[1]}" if inner else unknown[1]
        return f"{field}: is not a field of this request; allowed are {', '.join(_fields(message, inner))}"
    if expected := _EXPECTED.fullmatch(text):
        wanted, got, rest = expected.groups()
        names = [_WORDS.get(name.strip(), name.strip()) for name in wanted.split("|")]
        text = f"must be {' or '.join(names)}{_bounds(rest)}"
        if got:
            text += f", not {_WORDS.get(got, got)}"
    return f"{path}: {text}"


def _fields(message: object, path: str) -> list[str]:
    """What the object at the path may have, as the wire spells it."""
    kind = inspect.type_info(message)
    for name in filter(None, re.sub(r"\[[^]]*\]", "", path).split(".")):
        if isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.encode_name == name)
        while isinstance(kind, inspect.ListType):
            kind = kind.item_type
    return [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []


def _bounds(rest: str) -> str:
    """ "` of length <= 3`" as "of at most 3 elements or characters"."""
    rest = rest.strip()
    unit = ""
    if rest.startswith("of length "):
        rest, unit = rest.removeprefix("of length "), " in length"
    if rest.startswith("<= "):
        return f" of at most {int(rest[3:]):,}{unit}"
    if rest.startswith(">= "):
        return f" of at least {int(rest[3:]):,}{unit}"
    return f" {rest}{unit}" if rest else ""
