"""Between wire messages (`gateway.schemas`) and the engine's commands and effects (`engine.messages`).

Called by `gateway.server` for every request, so it is written for speed where there are many of a kind: parameters and
results pass as raw JSON, and one encoder and one decoder per message serve all requests. `tests/unit/gateway/
conversion_cost.py` measures it: 200 leases take 0.06 to 0.13 ms (0.3 to 0.65 us each, a third of it the encoder), so
pre-encoded fragments or a reused buffer would not pay.

Invariant: what leaves here is within the limits of the engine and can be encoded again by any JSON encoder. A bound of
a single field is in the type (and so in the OpenAPI document), what spans fields is checked here.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Hashable
from typing import TypeVar

import msgspec

from tickwheel_operator.api.nesting import is_nested_within
from tickwheel_operator.engine.messages import (
    CommandRefused,
    Delivery,
    FailedAttempt,
    Pull,
    Pulled,
    RefusalReason,
    Report,
    Reported,
    StartBackfill,
    Submission,
    Submit,
    Submitted,
    WorkerKey,
    WorkerSeen,
)
from tickwheel_operator.gateway import problems
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.problems import GatewayProblem
from tickwheel_operator.gateway.schemas import (
    MAX_SCHEMA_BYTES,
    MAX_SCHEMAS_BYTES,
    MAX_TOKENS,
    BackfillRequest,
    ErrorReport,
    Lease,
    Load,
    PullAnswer,
    PullRequest,
    ReportAnswer,
    ReportRequest,
    RunAnswer,
    RunRequest,
    SubmitAnswer,
    SubmitRequest,
    WorkerIdentity,
)
from tickwheel_operator.handlers.known import HandlerSchema

__all__ = [
    "backfill_command",
    "decode_backfill",
    "decode_pull",
    "decode_report",
    "decode_submit",
    "encode",
    "handler_schemas",
    "pull_answer",
    "pull_command",
    "refusal",
    "report_answer",
    "report_command",
    "submit_answer",
    "submit_command",
]

MAX_ERROR_TYPE_CHARS = 200
MAX_MESSAGE_CHARS = 2_000
MAX_TRACEBACK_CHARS = 8_000
"""Not above the engine's `max_error_chars`, or it would cut again and lose the note."""

_DEEPER = 200
MOST_LEVELS = 98
"""Of a value in a TaskRun's `status` or `spec`, so that the whole object has up to 100."""
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{309}")
"""Digits that may be an integer beyond a double, the largest number that the API server stores; or part of a text."""
_NO_LOAD = Load()
_DRAWN_BYTES = 12
"""Of the random part of drawn idempotency keys: a million requests of a task draw one twice with a chance of 1 in
10^17."""

_encode = msgspec.json.Encoder().encode
_pull_decoder = msgspec.json.Decoder(PullRequest)
_report_decoder = msgspec.json.Decoder(ReportRequest)
_backfill_decoder = msgspec.json.Decoder(BackfillRequest)
_submit_decoder = msgspec.json.Decoder(SubmitRequest)
_any_decoder = msgspec.json.Decoder()

_Message = TypeVar("_Message")


def encode(message: msgspec.Struct) -> bytes:
    """A wire message as JSON."""
    return _encode(message)


def _decode(decoder: msgspec.json.Decoder[_Message], body: bytes) -> _Message:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problems.bad_request(problems.explain(error, decoder.type)) from None


# --- pull ------------------------------------------------------------------------------------------------------------


def decode_pull(body: bytes) -> PullRequest:
    """The request, or `bad-request`."""
    request = _decode(_pull_decoder, body)
    _check_worker(request.worker)
    return request


_MOST_LOAD = 1_000.0
"""A share of a limit beyond this is a worker's mistake, and must not become the pool's picture."""


def handler_schemas(message: PullRequest) -> dict[str, HandlerSchema]:
    """What the worker registers. Raises `bad-request` or `too-large`."""
    found: dict[str, HandlerSchema] = {}
    size_bytes = 0
    for handler, schema in message.schemas.items():
        path = f"schemas.{handler}"
        if handler not in message.handlers:
            raise problems.bad_request(f"{path}: is not one of `handlers`")
        found[handler] = HandlerSchema(
            _checked_json(schema.parameters, MAX_SCHEMA_BYTES, f"{path}.parameters"),
            _checked_json(schema.result, MAX_SCHEMA_BYTES, f"{path}.result"),
        )
        size_bytes += len(schema.parameters) + len(schema.result)
    if size_bytes > MAX_SCHEMAS_BYTES:
        raise problems.too_large("schemas: the JSON", size_bytes=size_bytes, limit_bytes=MAX_SCHEMAS_BYTES)
    return found


def pull_command(
    message: PullRequest,
    *,
    request: Hashable,
    now_ms: int,
    config: GatewayConfig,
    pod_uid: str = "",
    at_once: bool = False,
) -> Pull:
    """A pull that the engine answers by `now_ms` plus the wait that was asked for, cut to what is allowed; `at_once`:
    it does not wait."""
    worker = message.worker
    load = message.load or _NO_LOAD
    return Pull(
        request=request,
        worker=WorkerSeen(
            key=WorkerKey(worker.namespace, worker.pool, worker.name),
            instance=worker.instance,
            started_ms=worker.started_ms,
            pod_uid=pod_uid,
            handlers=tuple(message.handlers),
            slots=message.slots,
            draining=message.draining,
            cpu=min(max(load.cpu, 0.0), _MOST_LOAD),
            memory=min(max(load.memory, 0.0), _MOST_LOAD),
            labels=message.labels,
            clock_offset_us=message.clock.offset_us if message.clock is not None else 0,
            clock_error_us=message.clock.error_us if message.clock is not None else None,
            schemas=message.schemas_hash,
        ),
        free=message.free,
        received=message.received,
        sequence=message.sequence,
        until_ms=now_ms if at_once else now_ms + min(max(message.wait_ms, 0), config.max_wait_ms),
    )


def pull_answer(
    effect: Pulled,
    *,
    epoch: int,
    ledger: str,
    received_us: int,
    now_us: int,
    lease_ms: int,
    send_schemas: bool = False,
    on_fault: Callable[[Delivery, Exception], None] = lambda delivery, error: None,
) -> PullAnswer:
    """`on_fault` hears of a delivery that cannot be written down; the others are sent."""
    leases = []
    for delivery in effect.deliveries:
        try:
            leases.append(_lease(delivery, lease_ms))
        except Exception as error:
            on_fault(delivery, error)
    return PullAnswer(
        epoch=epoch,
        ledger=ledger,
        now_ms=now_us // 1_000,
        received_us=received_us,
        answered_us=now_us,
        leases=leases,
        cancel=effect.cancel,
        send_schemas=send_schemas,
    )


def _lease(delivery: Delivery, lease_ms: int) -> Lease:
    task = delivery.task
    return Lease(
        token=delivery.token,
        run=delivery.run_id,
        task=f"{task.namespace}/{task.name}",
        handler=task.handler,
        scheduled_ms=delivery.scheduled_ms,
        not_before_ms=delivery.not_before_ms,
        attempt=delivery.attempt,
        lease_ms=lease_ms,
        timeout_ms=task.timeout_ms or 0,
        grace_ms=task.grace_ms,
        parameters=msgspec.Raw(delivery.parameters or b"{}"),
    )


# --- report ----------------------------------------------------------------------------------------------------------


def decode_report(body: bytes) -> ReportRequest:
    """The request, or `bad-request`."""
    request = _decode(_report_decoder, body)
    _check_worker(request.worker)
    named = (
        len(request.succeeded)
        + len(request.results)
        + len(request.failed)
        + len(request.returned)
        + len(request.renew)
        + len(request.progress)
    )
    if named > MAX_TOKENS:
        raise problems.bad_request(
            f"succeeded, results, failed, returned, renew, progress: name {named:,} tokens together; up to "
            f"{MAX_TOKENS:,} are allowed in one report: send the rest in another"
        )
    return request


def report_command(message: ReportRequest, *, request: Hashable, config: GatewayConfig, pod_uid: str = "") -> Report:
    """Raises `bad-request` or `too-large` for a result that is not within the limits."""
    worker = message.worker
    return Report(
        request=request,
        worker=WorkerSeen(
            key=WorkerKey(worker.namespace, worker.pool, worker.name),
            instance=worker.instance,
            started_ms=worker.started_ms,
            pod_uid=pod_uid,
        ),
        succeeded=message.succeeded,
        results=[
            (result.token, _checked_json(result.value, config.max_result_bytes, f"results[{index}].value"))
            for index, result in enumerate(message.results)
        ],
        failed=[_failed(error) for error in message.failed],
        returned=message.returned,
        renew=message.renew,
        progress=[
            (progress.token, min(max(progress.fraction, 0.0), 1.0), _head(progress.message, MAX_MESSAGE_CHARS))
            for progress in message.progress
        ],
        leaving=message.leaving,
    )


def report_answer(effect: Reported, *, epoch: int, ledger: str, received_us: int, now_us: int) -> ReportAnswer:
    return ReportAnswer(
        epoch=epoch,
        ledger=ledger,
        received_us=received_us,
        answered_us=now_us,
        fenced=effect.fenced,
        cancel=effect.cancel,
    )


def _failed(error: ErrorReport) -> FailedAttempt:
    return FailedAttempt(
        token=error.token,
        error_type=error.type[:MAX_ERROR_TYPE_CHARS],
        message=_head(error.message, MAX_MESSAGE_CHARS),
        traceback=_tail(error.traceback, MAX_TRACEBACK_CHARS),
        timeout=error.timeout,
        permanent=error.permanent,
    )


def _head(text: str, limit: int) -> str:
    """At most `limit` characters, a note of what was cut among them."""
    if len(text) <= limit:
        return text
    note = f" [{len(text) - limit:,} characters and more left out]"
    return text[: limit - len(note)] + note


def _tail(text: str, limit: int) -> str:
    """As `_head`, but keeps the end: a traceback's last lines tell most."""
    if len(text) <= limit:
        return text
    note = f"[{len(text) - limit:,} characters and more left out]\n"
    return note + text[len(note) - limit :]


# --- submit ----------------------------------------------------------------------------------------------------------


def decode_submit(body: bytes) -> SubmitRequest:
    """The request, or `bad-request`. No body at all asks for one run, as `{}` does."""
    return _decode(_submit_decoder, body or b"{}")


def submit_command(
    message: SubmitRequest, *, namespace: str, name: str, request: Hashable, now_ms: int, config: GatewayConfig
) -> Submit:
    """Draws an idempotency key for each run that has none. Raises `bad-request` or `too-large` for its parameters.

    One random part for the whole request, and the run's index: random digits for each run do not compress, and would be
    most of what the ledger writes of it.
    """
    drawn = secrets.token_urlsafe(_DRAWN_BYTES)
    return Submit(
        request=request,
        namespace=namespace,
        name=name,
        runs=[
            Submission(
                key=_checked_key(run.idempotency_key, index) or f"{drawn}.{index}",
                scheduled_ms=now_ms if run.scheduled_ms is None else run.scheduled_ms,
                parameters=_run_parameters(run, config, f"runs[{index}].parameters"),
                delay_ms=_checked_delay(run, index),
                front=run.on_expiry == "FireNow",
            )
            for index, run in enumerate(message.runs or [RunRequest()])
        ],
    )


def decode_backfill(body: bytes) -> BackfillRequest:
    """The request, or `bad-request`."""
    return _decode(_backfill_decoder, body)


def backfill_command(
    message: BackfillRequest, *, namespace: str, name: str, request: Hashable, config: GatewayConfig
) -> StartBackfill:
    """Raises `bad-request` or `too-large` for its parameters."""
    parameters = b""
    if message.parameters:
        parameters = _checked_json(msgspec.Raw(_encode(message.parameters)), config.max_parameters_bytes, "parameters")
    if message.idempotency_key and not message.idempotency_key.isprintable():
        raise problems.bad_request("idempotencyKey: has characters that cannot be printed")
    return StartBackfill(
        request=request,
        namespace=namespace,
        name=name,
        key=message.idempotency_key or f"backfill {message.from_ms} {message.to_ms}",
        from_ms=message.from_ms,
        to_ms=message.to_ms,
        max_parallel=message.max_parallel,
        parameters=parameters,
    )


def _checked_delay(run: RunRequest, index: int) -> int:
    if run.delay_ms and run.scheduled_ms is not None:
        raise problems.bad_request(
            f"runs[{index}].scheduledMs: excludes delayMs, since the end of the delay is the run's logical instant"
        )
    return run.delay_ms


def _checked_key(key: str, index: int) -> str:
    if key and not key.isprintable():
        raise problems.bad_request(
            f"runs[{index}].idempotencyKey: has characters that cannot be printed; "
            "up to 200 printable ones are allowed, such as `order-4711`"
        )
    return key


def _run_parameters(run: RunRequest, config: GatewayConfig, path: str) -> bytes:
    if not run.parameters:
        return b""
    return _checked_json(msgspec.Raw(_encode(run.parameters)), config.max_parameters_bytes, path)


def submit_answer(effect: Submitted) -> SubmitAnswer:
    return SubmitAnswer(
        runs=[RunAnswer(run=run.run_id, created=run.created, state=run.state.value) for run in effect.runs]
    )


# --- all of them -----------------------------------------------------------------------------------------------------


def refusal(effect: CommandRefused) -> GatewayProblem:
    """The problem that tells what the engine refused."""
    match effect.reason:
        case RefusalReason.NO_SUCH_TASK:
            return problems.no_such_task(effect.detail)
        case RefusalReason.NO_SUCH_RUN:
            return problems.no_such_run(effect.detail)
        case RefusalReason.BACKLOG_FULL:
            return problems.backlog_full(effect.detail)
        case RefusalReason.OVERLAP:
            return problems.overlap(effect.detail)
        case RefusalReason.NOT_POSSIBLE:
            return problems.bad_request(effect.detail)
        case RefusalReason.KEY_REUSED:
            return problems.key_reused(effect.detail)
        case RefusalReason.INVALID_PARAMETERS:
            return problems.invalid_parameters(effect.detail)
        case RefusalReason.NOT_READY:
            return problems.not_ready(effect.detail)


def _checked_json(raw: msgspec.Raw, limit_bytes: int, path: str) -> bytes:
    """The raw JSON as bytes. The decoder only skips over raw values, and lets bytes that are not UTF-8 and numbers out
    of range pass; stored, they would break every reader to come."""
    value = bytes(raw)
    if len(value) > limit_bytes:
        raise problems.too_large(f"{path}: the JSON", size_bytes=len(value), limit_bytes=limit_bytes)
    try:
        # Inside of as many brackets more: the engine reads it again from deeper in the stack.
        decoded = _any_decoder.decode(b"[" * _DEEPER + value + b"]" * _DEEPER)
        if value.count(b"[") + value.count(b"{") > MOST_LEVELS and not is_nested_within(decoded, _DEEPER + MOST_LEVELS):
            raise problems.bad_request(f"{path}: is nested more than {MOST_LEVELS} levels deep")
        if len(value) > 308 and _LONG_NUMBER.search(value):
            json.loads(value, parse_int=lambda digits: float(int(digits)))
    except OverflowError:
        raise problems.bad_request(f"{path}: has an integer beyond 1.8e308, the largest number that is kept") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said, fault = "[0]" * _DEEPER, problems.explain(error)
        where = path + fault.removeprefix(said) if fault.startswith(said) else f"{path}: {fault}"
        raise problems.bad_request(where) from None
    return value


def _check_worker(worker: WorkerIdentity) -> None:
    """Names go into logs, metrics and status: nothing that cannot be printed may hide in them."""
    if not (worker.name.isprintable() and worker.instance.isprintable() and worker.pool.isprintable()):
        raise problems.bad_request("worker: its names may only have printable characters, such as `shops-0`")
