"""The HTTP server of protocol v1: what workers and API users talk to.

The runtime makes one `Gateway` for each replica and starts it beside the partitions' host, which it reaches through
`gateway.backend`. A request is authenticated, read within its limit, decoded, handed to the host as a command and
answered from the effect; whatever refuses it on the way is a `GatewayProblem`. Only the leader answers workers; a
follower answers 421 with the leader's address.

Invariant: a pull whose connection is gone, or that is ended by `stop`, has its `Backend.call` cancelled, so that no
lease is delivered to nobody. It uses aiohttp's low-level server without router, middlewares and access log, since the
protocol has six paths and a pull or report may come thousands of times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from tickwheel_operator import reasons
from tickwheel_operator.engine.messages import (
    CommandRefused,
    Delivery,
    FailedAttempt,
    Pull,
    Pulled,
    Report,
    Reported,
    StartBackfill,
    Submit,
    Submitted,
)
from tickwheel_operator.gateway import convert, openapi, problems, refusals
from tickwheel_operator.gateway.backend import Backend, Leadership, NotLeader
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.connections import Connections
from tickwheel_operator.gateway.listener import Listener
from tickwheel_operator.gateway.problems import GatewayProblem
from tickwheel_operator.gateway.refusals import Refusals
from tickwheel_operator.gateway.schemas import PullAnswer, Topology
from tickwheel_operator.identity.callers import Authenticator, Authorizer, Principal
from tickwheel_operator.identity.refusal import Reason, Refused
from tickwheel_operator.objectfaults import Layer, ObjectFaults

__all__ = ["Gateway"]

_log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")


def _is_of_the_operator(record: logging.LogRecord) -> bool:
    """Whoever reaches the port could fill the log with tracebacks by what is no HTTP; the caller is answered 400."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_http_log.addFilter(_is_of_the_operator)

_JSON = {"Content-Type": "application/json"}
_PROBLEM_JSON = {"Content-Type": "application/problem+json"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNCOMPRESSED = ("", "identity")

_Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


class _Server(web.Server):
    """aiohttp's, which tells when a connection has ended."""

    on_lost: Callable[[object], None] = staticmethod(lambda protocol: None)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.on_lost(handler)


def _always_ready() -> str | None:
    return None


class Gateway:
    """The server. `start` and `stop` it once, on the loop that runs the backend."""

    def __init__(
        self,
        backend: Backend,
        authenticator: Authenticator,
        authorizer: Authorizer,
        config: GatewayConfig,
        *,
        ready: Callable[[], str | None] = _always_ready,
        tls: ssl.SSLContext | None = None,
        faults: ObjectFaults | None = None,
    ) -> None:
        """`ready` answers `/readyz`: None when this replica is ready, else why it is not. `tls` has a certificate,
        which may change while it serves; None: plain HTTP."""
        self._faults = faults or ObjectFaults()
        self._backend = backend
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._config = config
        self._ready = ready
        self._tls = tls
        self._listener: Listener | None = None
        self.refusals = Refusals()
        """Who was not let in, for the metrics."""
        self._runner: web.ServerRunner | None = None
        self._port = 0
        self._stopping = False
        self._waiting: set[asyncio.Task[object]] = set()
        """The tasks of pulls that wait for work."""
        self._routes: Mapping[str, tuple[str, _Handler]] = {
            "/v1/pull": ("POST", self._pull),
            "/v1/report": ("POST", self._report),
            "/v1/topology": ("GET", self._topology),
            "/openapi.json": ("GET", self._openapi),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
        }

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        config = self._config
        # Bodies stay as they were sent: aiohttp would inflate them in the loop, also those of callers that it refused.
        server = _Server(
            self._handle,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,
            keepalive_timeout=config.keepalive_s,
            logger=_http_log,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=config.stop_grace_s)
        await self._runner.setup()
        self._listener = Listener(server, self._tls, self.refusals, Connections(config.connections))
        server.on_lost = self._listener.lost
        self._port = self._listener.start(config.host, config.port)
        scheme = "https" if self._tls is not None else "plain http: tokens can be read on the way"
        _log.info("gateway listens on %s port %d (%s)", config.host, self._port, scheme)

    async def stop(self) -> None:
        """Answer the waiting pulls empty, let the other requests end, close. May be called more than once."""
        self._stopping = True
        for task in self._waiting:
            task.cancel()
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stop()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    # --- every request -------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if self._listener is not None and (connection := self._listener.connection(request.protocol)) is not None:
            connection.heard = True
        try:
            return await self._route(request)
        except Refused as refused:
            what = f"{request.method} {request.path[:100]!r}"
            peer = request.remote or "a caller that is gone"
            self.refusals.note(refused.reason, refused.detail, peer=peer, what=what, who=refused.who)
            response = _problem_response(refusals.problem(refused))
            if refused.reason is Reason.TOO_MANY:
                # So that the listener counts it: a flood must connect for each request, at a bounded rate.
                response.force_close()
            return response
        except GatewayProblem as problem:
            return _problem_response(problem)
        except NotLeader as error:
            return _problem_response(problems.not_leader(error.leader_url))
        except Exception:
            # The one place that may catch everything: a caller must get a document, and the log the traceback.
            _log.exception("the gateway failed on %s %s", request.method, request.path)
            return _problem_response(
                GatewayProblem("internal", "an error of the operator, see its log; the request may be sent again")
            )

    async def _route(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        route = self._routes.get(path)
        if route is not None:
            method, handler = route
            if request.method != method:
                raise _wrong_method(request, method)
            return await handler(request)
        # Split the raw path, so that a name with an escaped slash cannot become two segments.
        segments = request.rel_url.raw_path.split("/")
        if len(segments) == 6 and segments[1:3] == ["v1", "tasks"] and segments[5] in ("runs", "backfills"):
            if request.method != "POST":
                raise _wrong_method(request, "POST")
            submit = self._submit if segments[5] == "runs" else self._backfill
            return await submit(request, unquote(segments[3]), unquote(segments[4]))
        raise GatewayProblem(
            "not-found", f"{path}: is not a path of this protocol; GET /openapi.json describes those that are"
        )

    async def _authenticate(self, request: web.BaseRequest) -> Principal:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if token and scheme.lower() != "bearer":
            token = ""
        return await self._authenticator.authenticate(token.strip(), request.remote or "")

    def _authorized(self, request: web.BaseRequest) -> None:
        """The caller may do what it asks for: its connection is no stranger's."""
        if self._listener is not None:
            self._listener.proven(request.protocol)

    def _leadership(self, seen_epoch: int, seen_ledger: str = "") -> Leadership:
        """The present leadership, if this replica may answer one who has seen `seen_epoch` of `seen_ledger`."""
        leadership = self._backend.leadership()
        if not leadership.is_leader:
            raise problems.not_leader(leadership.leader_url)
        if seen_ledger not in ("", leadership.ledger):
            raise problems.ledger_replaced(seen=seen_ledger, ours=leadership.ledger)
        if seen_epoch > leadership.epoch:
            raise problems.epoch_passed(seen=seen_epoch, ours=leadership.epoch)
        return leadership

    async def _read(self, request: web.BaseRequest, limit_bytes: int) -> bytes:
        """The body, never holding much more than its limit."""
        if (coding := request.headers.get("Content-Encoding", "").lower()) not in _UNCOMPRESSED:
            raise problems.bad_request(f"Content-Encoding: {coding[:20]!r} is not read here; send the JSON as it is")
        length = request.content_length
        if length is not None and length > limit_bytes:
            raise problems.too_large("the body", size_bytes=length, limit_bytes=limit_bytes)
        content = request.content
        if content.is_eof():
            # It came with the headers, as most do: no task switch, no timer.
            body = content.read_nowait()
        else:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(_CONTINUE)
            body = await self._read_slowly(request, limit_bytes)
        if len(body) > limit_bytes:
            raise problems.too_large("the body", size_bytes=None, limit_bytes=limit_bytes)
        return body

    async def _read_slowly(self, request: web.BaseRequest, limit_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                while size <= limit_bytes and (chunk := await request.content.readany()):
                    chunks.append(chunk)
                    size += len(chunk)
        except TimeoutError:
            raise problems.bad_request(f"the body did not arrive within {self._config.body_timeout_s:g} s") from None
        except web.RequestPayloadError as error:
            raise problems.bad_request(f"the body cannot be read: {error}") from None
        return b"".join(chunks)

    # --- the protocol --------------------------------------------------------------------------------------------

    async def _pull(self, request: web.BaseRequest) -> web.Response:
        arrived_ns = time.monotonic_ns()
        principal = await self._authenticate(request)
        message = convert.decode_pull(await self._read(request, self._config.max_pull_bytes))
        worker = message.worker
        await self._authenticator.check_worker(principal, worker.namespace, worker.pool, worker.name)
        self._authorized(request)
        leadership = self._leadership(message.epoch, message.ledger)
        epoch, ledger = leadership.epoch, leadership.ledger
        backend = self._backend
        now_ms = backend.now_ms()
        if message.schemas:
            schemas = convert.handler_schemas(message)
            backend.take_schemas(worker.namespace, worker.pool, message.schemas_hash, schemas)
        send_schemas = backend.wants_schemas(worker.namespace, worker.pool, message.schemas_hash)
        command = convert.pull_command(
            message,
            request=backend.new_request(),
            now_ms=now_ms,
            config=self._config,
            pod_uid=principal.pod_uid,
            at_once=send_schemas,
        )
        if self._stopping:
            return _json_response(PullAnswer(epoch=epoch, ledger=ledger, now_ms=now_ms))
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine of the server always runs in one)
        self._waiting.add(task)
        try:
            async with asyncio.timeout((command.until_ms - now_ms + self._config.answer_grace_ms) / 1000):
                effect = await backend.call(command)
        except asyncio.CancelledError:
            # By `stop`, or because the connection is gone: then nobody reads the answer, and it does no harm.
            if not self._stopping:
                raise
            task.uncancel()
            return _json_response(PullAnswer(epoch=epoch, ledger=ledger, now_ms=backend.now_ms()))
        except TimeoutError:
            raise _unanswered() from None
        finally:
            self._waiting.discard(task)
        match effect:
            case Pulled():
                now_us = backend.now_us()
                received_us = _back_then(now_us, arrived_ns)
                unsent: list[FailedAttempt] = []
                answer = convert.pull_answer(
                    effect,
                    epoch=epoch,
                    ledger=ledger,
                    received_us=received_us,
                    now_us=now_us,
                    lease_ms=self._config.lease_ms,
                    send_schemas=send_schemas,
                    on_fault=lambda delivery, error: unsent.append(self._unsent(delivery, error)),
                )
                if unsent:
                    await self._fail(command, unsent)
                return _json_response(answer)
            case CommandRefused():
                raise convert.refusal(effect)
            case _:
                raise TypeError(f"a Pull was answered by {type(effect).__name__}")

    def _unsent(self, delivery: Delivery, error: Exception) -> FailedAttempt:
        """A lease that cannot be written down has failed: its worker never hears of it."""
        task = delivery.task
        message = self._faults.record(Layer.GATEWAY, "ScheduledTask", task.namespace, task.name, error)
        return FailedAttempt(token=delivery.token, error_type=reasons.INTERNAL_ERROR, message=message)

    async def _fail(self, pull: Pull, attempts: list[FailedAttempt]) -> None:
        report = Report(request=self._backend.new_request(), worker=pull.worker, failed=attempts)
        with contextlib.suppress(NotLeader, TimeoutError):  # then the next leader finds them lost
            async with asyncio.timeout(self._config.answer_grace_ms / 1000):
                await self._backend.call(report)

    async def _report(self, request: web.BaseRequest) -> web.Response:
        arrived_ns = time.monotonic_ns()
        principal = await self._authenticate(request)
        message = convert.decode_report(await self._read(request, self._config.max_report_bytes))
        worker = message.worker
        await self._authenticator.check_worker(principal, worker.namespace, worker.pool, worker.name)
        self._authorized(request)
        leadership = self._leadership(message.epoch, message.ledger)
        epoch, ledger = leadership.epoch, leadership.ledger
        command = convert.report_command(
            message, request=self._backend.new_request(), config=self._config, pod_uid=principal.pod_uid
        )
        try:
            async with asyncio.timeout(self._config.answer_grace_ms / 1000):
                effect = await self._backend.call(command)
        except TimeoutError:
            raise _unanswered() from None
        match effect:
            case Reported():
                now_us = self._backend.now_us()
                received_us = _back_then(now_us, arrived_ns)
                return _json_response(
                    convert.report_answer(effect, epoch=epoch, ledger=ledger, received_us=received_us, now_us=now_us)
                )
            case CommandRefused():
                raise convert.refusal(effect)
            case _:
                raise TypeError(f"a Report was answered by {type(effect).__name__}")

    async def _admit_submitter(self, request: web.BaseRequest, namespace: str, name: str) -> None:
        principal = await self._authenticate(request)
        for value, field in ((namespace, "namespace"), (name, "name")):
            if not value or len(value) > 253 or not value.isprintable() or "/" in value:
                raise problems.bad_request(
                    f"{field} (in the path): must be the name of a Kubernetes object, such as `shop-sync`"
                )
        await self._authorizer.check_submit(principal, namespace)
        self._authorized(request)
        self._leadership(0)

    async def _backfill(self, request: web.BaseRequest, namespace: str, name: str) -> web.Response:
        await self._admit_submitter(request, namespace, name)
        message = convert.decode_backfill(await self._read(request, self._config.max_submit_bytes))
        backend = self._backend
        return await self._submitted(
            convert.backfill_command(
                message, namespace=namespace, name=name, request=backend.new_request(), config=self._config
            )
        )

    async def _submit(self, request: web.BaseRequest, namespace: str, name: str) -> web.Response:
        await self._admit_submitter(request, namespace, name)
        message = convert.decode_submit(await self._read(request, self._config.max_submit_bytes))
        backend = self._backend
        command = convert.submit_command(
            message,
            namespace=namespace,
            name=name,
            request=backend.new_request(),
            now_ms=backend.now_ms(),
            config=self._config,
        )
        return await self._submitted(command)

    async def _submitted(self, command: Submit | StartBackfill) -> web.Response:
        try:
            async with asyncio.timeout(self._config.answer_grace_ms / 1000):
                effect = await self._backend.call(command)
        except TimeoutError:
            raise _unanswered() from None
        match effect:
            case Submitted():
                return _json_response(convert.submit_answer(effect))
            case CommandRefused():
                raise convert.refusal(effect)
            case _:
                raise TypeError(f"a submission was answered by {type(effect).__name__}")

    async def _topology(self, request: web.BaseRequest) -> web.Response:
        await self._authenticate(request)
        leadership = self._backend.leadership()
        return _json_response(Topology(partitions=leadership.partitions, replicas=list(leadership.replicas)))

    # --- without authentication ----------------------------------------------------------------------------------

    async def _openapi(self, request: web.BaseRequest) -> web.Response:
        return web.Response(body=openapi.document_json(), headers=_JSON)

    async def _healthz(self, request: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        reason = "it stops" if self._stopping else self._ready()
        if reason is None:
            return web.Response(text="ok\n")
        raise problems.not_ready(reason)


def _back_then(now_us: int, arrived_ns: int) -> int:
    """When a request arrived, by the wall clock of now. If that clock was set meanwhile, a worker notices it by this
    very answer: it compares both instants with what it knew, and the lease in it begins by the clock as it is now."""
    return now_us - (time.monotonic_ns() - arrived_ns) // 1_000


def _json_response(message: msgspec.Struct) -> web.Response:
    return web.Response(body=convert.encode(message), headers=_JSON)


def _problem_response(problem: GatewayProblem) -> web.Response:
    return web.Response(
        status=problem.status,
        body=convert.encode(problem.document()),
        headers={**_PROBLEM_JSON, **problem.headers},
    )


def _wrong_method(request: web.BaseRequest, allowed: str) -> GatewayProblem:
    return GatewayProblem(
        "method-not-allowed",
        f"{request.path}: has no {request.method}; {allowed} is allowed",
        headers={"Allow": allowed},
    )


def _unanswered() -> GatewayProblem:
    return problems.not_ready(
        "the operator could not make it durable in time; whether it was carried out is not known: send the same "
        "request again, it takes effect once (a submission only with idempotency keys)"
    )
