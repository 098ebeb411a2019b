"""The line to one leading replica: pulls leases from it, and reports to it what became of them.

`Worker` makes one per replica URL and tells it where to go when the leader moves. The invariants: a token is begun at
most once, however often its lease is sent; an outcome is kept and sent again, unchanged, until it is answered; an
answer of a lower epoch than one already seen is thrown away.

There is one pull under way at a time, but for a moment: a worker that is full keeps one open that asks for nothing, so
that a cancellation reaches it at once. When a slot is free the next pull does not wait for that one: the operator
answers it empty as soon as the newer arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic, time_ns

from ._attempt import Attempt, Report, Stop
from ._cgroup import LoadMeter
from ._client import (
    Backoff,
    EpochPassedError,
    LedgerReplacedError,
    NotLeaderError,
    OperatorClient,
    RefusedError,
    UnreachableError,
)
from ._execution import Execution
from ._held import LOOK_SECONDS, Held
from ._leader_clock import LeaderClock
from ._outbox import Outbox, divide, is_empty
from ._protocol import (
    ErrorReport,
    PullAnswer,
    PullRequest,
    ReportAnswer,
    ReportRequest,
    WorkerIdentity,
)
from ._ready import Readiness
from ._registry import Handler
from ._schemas import Described
from ._settings import Settings

__all__ = ["Link"]

_log = logging.getLogger("tickwheel.worker")

_REMEMBERED_TOKENS = 16_384  # how far back a lease that is sent again is recognised
_LEAVING_SECONDS = 5.0  # how long an operator that answers may take for the last report
_GOODBYE_SECONDS = 1.0  # how long goodbye is tried where the operator did not answer just before
_KILLED_SECONDS = 1.0  # how long the kernel may take to end the processes of handlers
_LOOK_SECONDS = 0.02
_LOOK_AGAIN_SECONDS = 60.0
_REPORTS_UNDER_WAY = 2  # an outcome need not wait until those before it are durable
_FEW_OUTCOMES = 50  # a report of more is answered before the next is sent: under load full reports are cheaper
_FREE_SECONDS = 0.5  # a full outbox empties without a slot becoming free
_FULL_SECONDS = 0.1  # a worker that is full for so long listens for cancellations; short handlers are done before
_PASSED_SECONDS = 60.0  # the leader says for so long that its epoch has passed: its ledger was restored from a backup
_OVERDUE_SECONDS = 2.0  # after a pull's wait; a leader that is frozen keeps its connections and answers nothing


class Link:
    """One leader. All methods are called in the event loop."""

    def __init__(
        self,
        url: str,
        *,
        settings: Settings,
        identity: WorkerIdentity,
        handlers: Mapping[str, Handler],
        described: Described,
        execution: Execution,
        client: OperatorClient,
        load: LoadMeter,
        free: Callable[[], int],
        wait_for_free: Callable[[float], Awaitable[None]],
        look_up: Callable[[Link], Awaitable[None]],
        readiness: Readiness,
        begin_anew: Callable[[Link], None],
    ) -> None:
        """`begin_anew` is called when the ledger that this link's leases are of is gone."""
        self.url = url
        self.epoch = 0
        self.ledger = ""
        """The identity of the ledger that epoch, tokens and leases are of; empty before the first answer."""
        self._settings = settings
        self._identity = identity
        self._handlers = handlers
        self._described = described
        self._send_schemas = False
        """The operator does not know them, and has asked."""
        self._execution = execution
        self._client = client
        self._load = load
        self._free = free
        self._wait_for_free = wait_for_free
        self._look_up = look_up
        self._readiness = readiness
        self._begin_anew = begin_anew
        self._passed_since = inf
        self._clock = LeaderClock()
        self._listening: asyncio.Task[PullAnswer] | None = None
        self._names = sorted(handlers)
        self._outbox = Outbox()
        self._received = 0
        self._pulls = 0
        self._seen: dict[int, None] = {}
        self._draining = False
        self._leaving = False
        self._left = False
        self._sending = 0
        self._answer_due = inf
        self._wake = asyncio.Event()
        self.held = Held(execution, self._wake.set)
        """What it leased and still runs."""
        self._report_timeout = 10.0
        self._warned_at = -inf
        self._pulling = asyncio.create_task(self._pull(), name=f"tickwheel-pull {url}")
        self._reporting = [
            asyncio.create_task(self._report(), name=f"tickwheel-report {url}") for _ in range(_REPORTS_UNDER_WAY)
        ]
        self._watching = asyncio.create_task(self._watch(), name=f"tickwheel-watch {url}")

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The link's loops; none ends before `drain`, but by a fault of the SDK."""
        return self._pulling, *self._reporting, self._watching

    def move(self, url: str) -> None:
        """Go on with another replica: it leads now what the one before led. What the open pull may still bring is
        sent again by the new leader, since `received` does not name it."""
        self.url = url
        self._clock.forget()
        if self._listening is not None:
            self._listening.cancel()
        if not self._draining and asyncio.current_task() is not self._pulling:
            self._pulling.cancel()
            self._pulling = asyncio.create_task(self._pull(), name=f"tickwheel-pull {url}")

    # What the execution calls.

    def ended(self, attempt: Attempt, report: Report) -> None:
        """The attempt's handler stopped; `report` is what to say of it, if anything."""
        self.held.attempts.pop(attempt.lease.token, None)
        if report is not None:
            self._outbox.add(report)
            self._wake.set()
        if self._draining:
            self.held.fewer()

    def returned(self, attempt: Attempt, *, wanted: bool) -> None:
        """The attempt's handler never began; give the lease back, if it is still ours to give."""
        self.held.attempts.pop(attempt.lease.token, None)
        if wanted:
            self._outbox.returned.append(attempt.lease.token)
            self._wake.set()
        if self._draining:
            self.held.fewer()

    # Pulling.

    async def _pull(self) -> None:
        backoff = Backoff()
        while not self._draining:
            free = self._room()
            try:
                if free > 0:
                    self._accept(await self._exchange(free))
                    # One turn of the loop: handlers that never suspend are done after it, and the next pull asks for
                    # more.
                    await asyncio.sleep(0)
                else:
                    await self._while_full()
            except (UnreachableError, RefusedError) as error:
                await self._recover(error, backoff)
            else:
                backoff.reset()

    def _room(self) -> int:
        """How many leases to ask for. Outcomes that cannot be delivered stop the intake before they fill the memory."""
        return self._free() if self._outbox.waiting < 4 * self._execution.slots + 1000 else 0

    async def _while_full(self) -> None:
        """Wait for a free slot, and listen for cancellations meanwhile. The pull that listens may outlast this."""
        await self._wait_for_free(_FULL_SECONDS)
        while self._room() <= 0 and not self._draining:
            if self._listening is None:
                self._listening = asyncio.create_task(self._exchange(0), name=f"tickwheel-listen {self.url}")
                self._listening.add_done_callback(self._heard)
            listening = self._listening
            freed = asyncio.ensure_future(self._wait_for_free(_FREE_SECONDS))
            try:
                await asyncio.wait({listening, freed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                freed.cancel()
            if listening.done():
                if not listening.cancelled():
                    listening.result()  # raises what went wrong
                return

    def _heard(self, listening: asyncio.Task[PullAnswer]) -> None:
        if self._listening is listening:
            self._listening = None
        if not listening.cancelled() and listening.exception() is None:
            self._accept(listening.result())

    async def _exchange(self, free: int) -> PullAnswer:
        """One pull, from request to answer. The worker's first does not wait for work: its answer says at once whether
        the worker is let in."""
        wait_s = self._settings.pull_wait if self._readiness.registered else 0.0
        due = self._answer_due = monotonic() + wait_s + _OVERDUE_SECONDS
        try:
            request = self._pull_request(free=free, wait_ms=int(wait_s * 1000))
            sent_at = monotonic()
            answer = await self._client.pull(self.url, request, timeout=wait_s + 10)
            self._check(answer, sent_at)
            self._send_schemas = answer.send_schemas
            self._readiness.accepted()
            return answer
        finally:
            if self._answer_due == due:  # else the next pull has begun
                self._answer_due = inf

    async def _watch(self) -> None:
        """Ask who leads while the answer of a pull is overdue: if it is another replica, the link moves there."""
        while True:
            await asyncio.sleep(_OVERDUE_SECONDS)
            if monotonic() > self._answer_due:
                await self._look_up(self)

    def _pull_request(self, *, free: int, wait_ms: int) -> PullRequest:
        wall_us = time_ns() // 1000
        self._pulls += 1
        return PullRequest(
            worker=self._identity,
            handlers=self._names,
            free=free,
            slots=self._execution.slots,
            received=self._received,
            sequence=self._pulls,
            epoch=self.epoch,
            ledger=self.ledger,
            load=self._load.read(),
            draining=self._draining,
            wait_ms=wait_ms,
            now_ms=wall_us // 1000,
            clock=self._clock.estimate(wall_us, self.url),
            labels=dict(self._settings.labels),
            schemas_hash=self._described.hash,
            schemas=self._described.schemas if self._send_schemas else {},
        )

    def _accept(self, answer: PullAnswer) -> None:
        now = monotonic()
        begin: list[Attempt] = []
        held = self.held.attempts
        for lease in answer.leases:
            token = lease.token
            if token in self._seen:
                continue
            self._seen[token] = None
            self._received = max(self._received, token)
            handler = self._handlers.get(lease.handler)
            if self._draining:
                self._outbox.returned.append(token)
            elif handler is None:
                self._outbox.add(_no_handler(token, lease.handler, self._handlers))
            else:
                if lease.not_before_ms and (start := self._clock.start_of(lease, answer, now)) > now:
                    attempt = held[token] = Attempt(lease, handler, self, start)
                    self._execution.begin_at(attempt, start)
                else:
                    attempt = held[token] = Attempt(lease, handler, self, now)
                    begin.append(attempt)
                due = min(attempt.renew_at, attempt.timeout_at)
                if due < self.held.look_at:
                    self.held.look_by(due, now)
        for token in answer.cancel:
            self._cancel(token, now)
        if begin:
            self._execution.begin(begin)
        if answer.leases:
            self._report_timeout = max(1.0, min(10.0, answer.leases[0].lease_ms / 3000))
            self.held.look_by(now + LOOK_SECONDS, now)
        if self._outbox:
            self._wake.set()
        if len(self._seen) > 2 * _REMEMBERED_TOKENS:
            recent = list(self._seen)[-_REMEMBERED_TOKENS:]
            self._seen = dict.fromkeys([*held, *recent])

    def _cancel(self, token: int, now: float) -> None:
        """Stop the attempt. One whose lease has not come is given back, and never begun if it still comes."""
        if token in self._seen:
            self.held.stop(token, Stop.CANCELLED, now)
            return
        self._seen[token] = None
        self._received = max(self._received, token)
        self._outbox.returned.append(token)

    # Reporting.

    async def _report(self) -> None:
        """Send one report after the other. Several of these run: what one report says never depends on another, but
        for the last one."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            if self._left:
                return
            request = self._next_report()
            if request is None:
                self._wake.clear()
                continue
            self._sending += 1
            parts = [request]
            while parts:
                parts[:0] = await self._send(parts.pop(0), backoff)
            self._sending -= 1
            self._outbox.answered(request)
            self._left |= request.leaving
            self._wake.set()

    async def _send(self, request: ReportRequest, backoff: Backoff) -> list[ReportRequest]:
        """Send it, unchanged, until it is answered. Returns what is to be sent instead where it is refused for good."""
        body = self._client.encode(request)
        while True:
            sent_at = monotonic()
            try:
                answer = await self._client.report(self.url, body, timeout=self._report_timeout)
                self._check(answer, sent_at)
            except UnreachableError as error:
                await self._recover(error, backoff)
            except RefusedError as error:
                _log.error("the operator refuses a report, which is sent again in parts: %s", error)
                backoff.reset()
                return divide(request, str(error))
            else:
                backoff.reset()
                self._answered(request, answer, sent_at)
                return []

    def _next_report(self) -> ReportRequest | None:
        if self._outbox.under_way > _FEW_OUTCOMES:
            return None
        request = ReportRequest(worker=self._identity, epoch=self.epoch, ledger=self.ledger)
        self._outbox.move_into(request)
        self.held.fill(request)
        # The operator gives away what a worker that leaves still holds, so that this is said when all else is answered.
        request.leaving = self._leaving and not self._sending and not self._outbox
        return None if is_empty(request) else request

    def _answered(self, request: ReportRequest, answer: ReportAnswer, sent_at: float) -> None:
        self.held.renewed(request.renew, sent_at)
        now = monotonic()
        for token in answer.fenced:
            self.held.stop(token, Stop.FENCED, now)
        for token in answer.cancel:
            self.held.stop(token, Stop.CANCELLED, now)

    # The leader: losing it and finding it.

    def _check(self, answer: PullAnswer | ReportAnswer, sent_at: float) -> None:
        """See to it that the answer is of no deposed leader, and learn the time from it."""
        if self.ledger and answer.ledger not in ("", self.ledger):
            raise LedgerReplacedError(f"{self.url} answered of ledger {answer.ledger}, but this is of {self.ledger}")
        if answer.epoch < self.epoch:
            raise NotLeaderError(f"{self.url} answered in epoch {answer.epoch}, but epoch {self.epoch} has begun")
        if answer.epoch > self.epoch:
            self.epoch = answer.epoch
            self._clock.forget()
        self.ledger = self.ledger or answer.ledger
        self._passed_since = inf
        self._clock.learn(answer, sent_at, self.url)

    async def _recover(self, error: UnreachableError | RefusedError, backoff: Backoff) -> None:
        """Wait a little, then find out where the leader is."""
        level = logging.WARNING if monotonic() - self._warned_at > 30 else logging.DEBUG
        if level == logging.WARNING:
            self._warned_at = monotonic()
        _log.log(level, "%s; trying again", error)
        if self._is_of_another_ledger(error):
            self._begin_anew(self)
        await asyncio.sleep(backoff.next())
        await self._look_up(self)

    def _is_of_another_ledger(self, error: UnreachableError | RefusedError) -> bool:
        """Whether nobody will ever take this link's word again: the ledger was lost, or restored from a backup, so that
        its leader says without end that this worker has seen a later epoch."""
        if isinstance(error, EpochPassedError):
            self._passed_since = min(self._passed_since, monotonic())
        return isinstance(error, LedgerReplacedError) or monotonic() - self._passed_since > _PASSED_SECONDS

    # Leaving.

    async def retire(self) -> None:
        """Say nothing more, and stop what runs, as its leases are of a ledger that is gone; until it has stopped."""
        self._draining = True
        await self._end_loops()
        now = monotonic()
        for token in list(self.held.attempts):
            self.held.stop(token, Stop.FENCED, now)
        while not self.held.settled():
            await self.held.until_settled(monotonic() + _LOOK_AGAIN_SECONDS)
        self.held.close()

    async def drain(self, deadline: float) -> None:
        """Take nothing new, give back what has not begun, let handlers finish until `deadline` (seconds of
        `time.monotonic`), report, say goodbye.

        Goodbye says that whatever is held is lost, so it is not said while a handler that must have stopped for another
        reason than this drain still runs: the operator sees its end by that of the process.

        While the operator is away only outcomes are worth a wait, until the deadline: the rest it learns from the end
        of the pod."""
        self._draining = True
        self._execution.give_back()  # not before: an answer that comes in between must not begin anything
        heard = await self._end_pulling()
        await self.held.until_settled(deadline)
        if not self.held.settled():
            now = monotonic()
            held = self.held.attempts
            _log.warning("%d handlers did not finish in the drain timeout: they are stopped", len(held))
            grace = max(attempt.lease.grace_ms for attempt in held.values()) / 1000
            for token in list(held):
                self.held.stop(token, Stop.DRAIN, now)
            await self.held.until_settled(now + min(grace, _LEAVING_SECONDS))
            if self._execution.kill_processes():
                await self.held.until_settled(monotonic() + _KILLED_SECONDS)
        leaves = all(attempt.stop in (Stop.DRAIN, Stop.FENCED) for attempt in self.held.attempts.values())
        if leaves:
            self._leaving = True
            self._wake.set()
        answered = await self._delivered(max(_LEAVING_SECONDS, deadline - monotonic()))
        if leaves:
            await asyncio.wait(self._reporting, timeout=_LEAVING_SECONDS if heard and answered else _GOODBYE_SECONDS)
            answered = self._left
        if not answered:
            _log.warning("the operator did not answer the last report: it will notice the loss of this worker itself")

    async def _delivered(self, patience: float) -> bool:
        """Until the operator has answered for every outcome."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._outbox.outcomes:  # noqa: ASYNC110 - an event for it would cost each report, for this one use
                    await asyncio.sleep(_LOOK_SECONDS)
        return not self._outbox.outcomes

    async def close(self) -> None:
        """End the loops, whatever they are at."""
        self.held.close()
        await self._end_loops()

    async def _end_loops(self) -> None:
        tasks = [*self.tasks, *([self._listening] if self._listening is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_pulling(self) -> bool:
        """Tell the operator, so that it ends the open pull; leases that are under way in its answer are given back.
        Cutting the connection instead would lose them until their leases end. Returns whether it answered."""
        request = self._pull_request(free=0, wait_ms=0)
        sent_at = monotonic()
        try:
            answer = await self._client.pull(self.url, request, timeout=_LEAVING_SECONDS)
            self._check(answer, sent_at)
            self._accept(answer)
        except (UnreachableError, RefusedError) as error:
            _log.debug("the operator could not be told of the drain: %s", error)
            self._pulling.cancel()
            return False
        await asyncio.wait([self._pulling], timeout=1)
        self._pulling.cancel()
        return True


def _no_handler(token: int, name: str, handlers: Mapping[str, Handler]) -> ErrorReport:
    known = ", ".join(sorted(handlers)) or "none"
    return ErrorReport(
        token=token,
        type="HandlerNotFound",
        message=f"this worker has no handler {name!r}; it has {known}: check spec.handler and the @task names",
    )
