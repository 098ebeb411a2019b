"""A small operator for the SDK's tests: a real HTTP server that speaks the protocol, with faults on demand.

It is no copy of the engine: tests put leases into it, and it remembers what was reported. A `Cluster` of two replicas
shares its state, as a ledger would, so that the leader can move.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from tickwheel._protocol import (
    ErrorReport,
    Lease,
    Problem,
    ProgressReport,
    PullAnswer,
    PullRequest,
    Replica,
    ReportAnswer,
    ReportRequest,
    Topology,
)


class FakeOperator:
    """The shared state, and the faults that tests set."""

    def __init__(self) -> None:
        self.epoch = 1
        self.ledger = "ledger-1"
        self.leader = 0
        self.servers: list[TestServer] = []
        self.leases: dict[int, Lease] = {}
        self.open: set[int] = set()
        self.sent: Counter[int] = Counter()
        self.succeeded: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.failed: dict[int, ErrorReport] = {}
        self.returned: list[int] = []
        self.progress: list[ProgressReport] = []
        self.renewed: Counter[int] = Counter()
        self.reports: list[ReportRequest] = []
        self.report_bodies: list[bytes] = []
        self.pulls: list[PullRequest] = []
        self.headers: list[dict[str, str]] = []
        self.cancel: set[int] = set()
        self.told: set[int] = set()
        """Cancellations that an answer of a pull held."""
        self.fence: set[int] = set()
        self.left = asyncio.Event()
        self.changed = asyncio.Event()
        self.pulls_open = 0
        self.clock_ahead_s: float | None = 0.0
        """The operator's wall clock minus that of this machine; none: it does not tell the time."""
        # Faults: each answers how many more times it happens.
        self.lose_pull_answers = 0
        self.lose_report_answers = 0
        self.asks_for_schemas = False
        self.repeat_leases = False
        self.unavailable = 0
        self.asked = 0
        """How often it was asked who leads."""
        self.slow_topology = False
        """That is not answered."""
        self.refuse_pulls = False
        """Pulls are answered 403, as those of a worker that is not let in."""
        self.refuse_results: set[int] = set()
        """Tokens whose results make the whole report refused, as JSON that the operator cannot read would."""
        self.silent_on_reports = False
        self.reports_held = 0
        """So many reports are answered only when `release` is set; they are not recorded before."""
        self.release = asyncio.Event()
        self.hung: set[int] = set()
        """Replicas that answer neither pulls nor reports, as behind a broken network."""
        self.answer_epoch: int | None = None
        self._tokens = itertools.count(1)

    # What tests call.

    def lease(self, handler: str, parameters: object = None, **fields: Any) -> int:
        """Have an attempt for the worker; returns its token."""
        token = next(self._tokens)
        fields.setdefault("run", f"run-{token}")
        fields.setdefault("scheduled_ms", 1_700_000_000_000)
        raw = msgspec.Raw(msgspec.json.encode(parameters or {}))
        self.leases[token] = Lease(token=token, task="ns/task", handler=handler, parameters=raw, **fields)
        self.open.add(token)
        self._change()
        return token

    def stop_attempt(self, token: int) -> None:
        """Cancel the attempt: the open pull is answered with it, whatever it asks for."""
        self.cancel.add(token)
        self._change()

    def clock_us(self) -> int:
        """The operator's wall clock; 0: it does not tell."""
        return 0 if self.clock_ahead_s is None else time.time_ns() // 1000 + int(self.clock_ahead_s * 1e6)

    def move_leader(self) -> None:
        """The other replica leads from now on, in a new epoch."""
        self.leader = 1 - self.leader
        self.epoch += 1
        self._change()

    def lose_the_ledger(self) -> None:
        """Begin again with epoch 1 and token 1."""
        self.ledger += "+"
        self.epoch = 1
        self.forget_attempts()

    def forget_attempts(self) -> None:
        """As a ledger that does not know them, and gives their tokens away again."""
        self.leases.clear()
        self.open.clear()
        self.sent.clear()
        self._tokens = itertools.count(1)
        self._change()

    async def begun_and_over(self, handler: str, **fields: Any) -> int:
        """Lease the handler until an attempt began before its short time was over; its token, once it has ended."""
        while True:
            token = self.lease(handler, **fields)
            await self.until(lambda token=token: token not in self.open)
            if token not in self.returned:
                return token

    async def until(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Wait until the condition holds after some request."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def url(self) -> str:
        """The first replica: the endpoint that workers are given."""
        return str(self.servers[0].make_url("")).rstrip("/")

    # The server.

    async def start(self, replicas: int = 1) -> None:
        for number in range(replicas):
            server = TestServer(self.app(number))
            await server.start_server()
            self.servers.append(server)

    async def stop(self) -> None:
        for server in self.servers:
            await server.close()

    def app(self, number: int) -> web.Application:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_get("/v1/topology", self._topology)

        async def pull(request: web.Request) -> web.StreamResponse:
            return await self._pull(request, number)

        async def report(request: web.Request) -> web.StreamResponse:
            return await self._report(request, number)

        app.router.add_post("/v1/pull", pull)
        app.router.add_post("/v1/report", report)
        return app

    async def _topology(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.slow_topology:
            await asyncio.sleep(3600)
        if self._unavailable():
            return web.Response(status=503, text="upstream connect error")
        url = str(self.servers[self.leader].make_url("")).rstrip("/")
        return _answer(Topology(partitions=1, replicas=[Replica(url=url, partitions=[0], epoch=self.epoch)]))

    async def _pull(self, request: web.Request, number: int) -> web.StreamResponse:
        pull = msgspec.json.decode(await request.read(), type=PullRequest)
        received_us = self.clock_us()
        self.headers.append(dict(request.headers))
        self.pulls.append(pull)
        if self._unavailable():
            return web.Response(status=503, text="upstream connect error")
        if self.refuse_pulls:
            return _problem("forbidden", 403)
        epoch = self.epoch if self.answer_epoch is None else self.answer_epoch
        if pull.draining:
            self._change()
            return _answer(PullAnswer(epoch=epoch, now_ms=0, cancel=sorted(self.cancel & self.open)))
        number_of_pull = len(self.pulls)
        self._change()  # as the engine does, it answers the older pull of the worker
        self.pulls_open += 1
        try:
            deadline = asyncio.get_running_loop().time() + pull.wait_ms / 1000
            while True:
                if number in self.hung:
                    await asyncio.sleep(30)
                if number != self.leader:
                    return _problem("not-leader", 421, leader=str(self.servers[self.leader].make_url("")))
                if pull.ledger not in ("", self.ledger):
                    return _problem("ledger-replaced", 409)
                if pull.epoch > self.epoch:
                    return _problem("epoch-passed", 409)
                newest = number_of_pull == len(self.pulls)
                leases = self._leases_for(pull) if newest else []
                cancel = sorted((self.cancel & self.open) - self.told) if newest else []
                left = deadline - asyncio.get_running_loop().time()
                if leases or cancel or left <= 0 or not newest:
                    break
                changed = self.changed
                try:
                    await asyncio.wait_for(changed.wait(), left)
                except TimeoutError:
                    continue
        finally:
            self.pulls_open -= 1
        self.told.update(cancel)
        for lease in leases:
            self.sent[lease.token] += 1
        if self.lose_pull_answers:
            self.lose_pull_answers -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        epoch = self.epoch if self.answer_epoch is None else self.answer_epoch
        return _answer(
            PullAnswer(
                epoch=epoch, ledger=self.ledger, now_ms=0, leases=leases, cancel=cancel,
                received_us=received_us, answered_us=self.clock_us(), send_schemas=self.asks_for_schemas,
            )
        )  # fmt: skip

    def _leases_for(self, pull: PullRequest) -> list[Lease]:
        chosen = []
        for token in sorted(self.open):
            fresh = self.sent[token] == 0 or token > pull.received
            if (fresh or (self.repeat_leases and self.sent[token] < 3)) and len(chosen) < pull.free:
                chosen.append(self.leases[token])
        return chosen

    async def _report(self, request: web.Request, number: int) -> web.StreamResponse:
        body = await request.read()
        received_us = self.clock_us()
        if self.silent_on_reports or number in self.hung:
            await asyncio.sleep(30)
        if self.reports_held:
            self.reports_held -= 1
            await self.release.wait()
        if number != self.leader:
            return _problem("not-leader", 421, leader=str(self.servers[self.leader].make_url("")))
        if self._unavailable():
            return web.Response(status=503, text="upstream connect error")
        report = msgspec.json.decode(body, type=ReportRequest)
        if report.ledger not in ("", self.ledger):
            return _problem("ledger-replaced", 409)
        if any(result.token in self.refuse_results for result in report.results):
            return _problem("bad-request", 400)
        self.report_bodies.append(body)
        self.reports.append(report)
        fenced = self._record(report)
        if self.lose_report_answers:
            self.lose_report_answers -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        cancel = sorted(self.cancel & set(report.renew))
        return _answer(
            ReportAnswer(
                epoch=self.epoch,
                ledger=self.ledger,
                fenced=fenced,
                cancel=cancel,
                received_us=received_us,
                answered_us=self.clock_us(),
            )
        )

    def _record(self, report: ReportRequest) -> list[int]:
        fenced = []

        def close(token: int) -> bool:
            if token not in self.open or token in self.fence:
                fenced.append(token)
                return False
            self.open.discard(token)
            return True

        for token in report.succeeded:
            if close(token):
                self.succeeded[token] += 1
        for result in report.results:
            if close(result.token):
                self.succeeded[result.token] += 1
                self.results[result.token] = msgspec.json.decode(result.value)
        for error in report.failed:
            if close(error.token):
                self.failed[error.token] = error
        for token in report.returned:
            if close(token):
                self.returned.append(token)
        for token in report.renew:
            if token in self.open and token not in self.fence:
                self.renewed[token] += 1
            else:
                fenced.append(token)
        self.progress.extend(report.progress)
        if report.leaving:
            self.left.set()
        return fenced

    def _unavailable(self) -> bool:
        if self.unavailable:
            self.unavailable -= 1
            return True
        return False

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def _answer(message: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(message), content_type="application/json")


def _problem(name: str, status: int, leader: str = "") -> web.Response:
    problem = Problem(title=name, status=status, type=f"urn:tickwheel:problem:{name}", leader=leader)
    return web.Response(status=status, body=msgspec.json.encode(problem), content_type="application/problem+json")
