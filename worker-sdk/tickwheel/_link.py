"""The line to one leading replica: pulls leases from it, reports to it, and watches the clocks of what it leased.

`Worker` makes one per replica URL and tells it where to go when the leader moves. The invariants: a token is begun at
most once, however often its lease is sent; an outcome is kept and sent again, unchanged, until it is answered; an
answer of a lower epoch than one already seen is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic, time_ns

from ._attempt import Attempt, Stop, failure
from ._cgroup import LoadMeter
from ._client import Backoff, NotLeaderError, OperatorClient, RefusedError, UnreachableError
from ._execution import Execution
from ._outbox import Outbox, add_progress, add_renewal, divide, is_empty
from ._protocol import ErrorReport, PullAnswer, PullRequest, ReportAnswer, ReportRequest, ResultReport, WorkerIdentity
from ._registry import Handler
from ._settings import Settings

__all__ = ["Link"]

_log = logging.getLogger("tickwheel.worker")

_SWEEP_SECONDS = 1.0  # the longest pause between looks at the clocks of running attempts; also how often progress goes
_REMEMBERED_TOKENS = 16_384  # how far back a lease that is sent again is recognised
_LEAVING_SECONDS = 5.0  # how long the last report is tried
_REPORTS_UNDER_WAY = 2  # an outcome need not wait until those before it are durable
_FEW_OUTCOMES = 50  # a report of more is answered before the next is sent: under load full reports are cheaper
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
        execution: Execution,
        client: OperatorClient,
        load: LoadMeter,
        free: Callable[[], int],
        wait_for_free: Callable[[], Awaitable[None]],
        look_up: Callable[[Link], Awaitable[None]],
    ) -> None:
        self.url = url
        self.epoch = 0
        self.held: dict[int, Attempt] = {}
        """The attempts whose handlers run, by token."""
        self._settings = settings
        self._identity = identity
        self._handlers = handlers
        self._execution = execution
        self._client = client
        self._load = load
        self._free = free
        self._wait_for_free = wait_for_free
        self._look_up = look_up
        self._outbox = Outbox()
        self._received = 0
        self._seen: dict[int, None] = {}
        self._draining = False
        self._leaving = False
        self._left = False
        self._sending = 0
        self._answer_due = inf
        self._renewals_due = False
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._sweep_at = inf
        self._sweep_handle: asyncio.TimerHandle | None = None
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
        if not self._draining and asyncio.current_task() is not self._pulling:
            self._pulling.cancel()
            self._pulling = asyncio.create_task(self._pull(), name=f"tickwheel-pull {url}")

    # What the execution calls.

    def ended(self, attempt: Attempt, report: ResultReport | ErrorReport | int | None) -> None:
        """The attempt's handler stopped; `report` is what to say of it, if anything."""
        self.held.pop(attempt.lease.token, None)
        if report is not None:
            self._outbox.add(report)
            self._wake.set()
        if self._draining and not self.held:
            self._empty.set()

    def returned(self, attempt: Attempt, *, wanted: bool) -> None:
        """The attempt's handler never began; give the lease back, if it is still ours to give."""
        self.held.pop(attempt.lease.token, None)
        if wanted:
            self._outbox.returned.append(attempt.lease.token)
            self._wake.set()
        if self._draining and not self.held:
            self._empty.set()

    # Pulling.

    async def _pull(self) -> None:
        backoff = Backoff()
        names = sorted(self._handlers)
        wait_ms = int(self._settings.pull_wait * 1000)
        while not self._draining:
            # Outcomes that cannot be delivered stop the intake, before they fill the memory.
            free = self._free() if self._outbox.waiting < 4 * self._execution.slots + 1000 else 0
            if free <= 0:
                await self._wait_for_free()
                continue
            request = self._pull_request(names, free=free, wait_ms=wait_ms)
            due = self._answer_due = monotonic() + self._settings.pull_wait + _OVERDUE_SECONDS
            try:
                answer = await self._client.pull(self.url, request, timeout=self._settings.pull_wait + 10)
                self._check_epoch(answer.epoch)
            except (UnreachableError, RefusedError) as error:
                await self._recover(error, backoff)
                continue
            finally:
                if self._answer_due == due:  # else the next pull has begun, since the leader moved
                    self._answer_due = inf
            backoff.reset()
            self._accept(answer)
            # One turn of the loop: handlers that never suspend are done after it, and the next pull asks for more.
            await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Ask who leads while the answer of a pull is overdue: if it is another replica, the link moves there."""
        while True:
            await asyncio.sleep(_OVERDUE_SECONDS)
            if monotonic() > self._answer_due:
                await self._look_up(self)

    def _pull_request(self, names: list[str], *, free: int, wait_ms: int) -> PullRequest:
        return PullRequest(
            worker=self._identity,
            handlers=names,
            free=free,
            slots=self._execution.slots,
            received=self._received,
            epoch=self.epoch,
            load=self._load.read(),
            draining=self._draining,
            wait_ms=wait_ms,
            now_ms=time_ns() // 1_000_000,
            labels=dict(self._settings.labels),
        )

    def _accept(self, answer: PullAnswer) -> None:
        now = monotonic()
        begin: list[Attempt] = []
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
                attempt = self.held[token] = Attempt(lease, handler, self, now)
                begin.append(attempt)
                due = min(attempt.renew_at, attempt.timeout_at)
                if due < self._sweep_at:
                    self._sweep_by(due, now)
        for token in answer.cancel:
            self._stop(token, Stop.CANCELLED, now)
        if begin:
            self._report_timeout = max(1.0, min(10.0, begin[0].lease.lease_ms / 3000))
            self._execution.begin(begin)
            self._sweep_by(now + _SWEEP_SECONDS, now)
        if self._outbox:
            self._wake.set()
        if len(self._seen) > 2 * _REMEMBERED_TOKENS:
            recent = list(self._seen)[-_REMEMBERED_TOKENS:]
            self._seen = dict.fromkeys([*self.held, *recent])

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
                self._check_epoch(answer.epoch)
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
        request = ReportRequest(worker=self._identity, epoch=self.epoch)
        self._outbox.move_into(request)
        if self._renewals_due:
            self._renewals_due = False
            now = monotonic()
            for attempt in self.held.values():
                # Also what is due before long: fewer, fuller reports.
                if attempt.renew_at - now < attempt.lease.lease_ms / 6000 and add_renewal(request, attempt):
                    attempt.renew_at = inf
                if attempt.progress is not attempt.progress_sent:
                    add_progress(request, attempt)
        # The operator gives away what a worker that leaves still holds, so that this is said when all else is answered.
        request.leaving = self._leaving and not self._sending and not self._outbox
        return None if is_empty(request) else request

    def _answered(self, request: ReportRequest, answer: ReportAnswer, sent_at: float) -> None:
        now = monotonic()
        for token in request.renew:
            attempt = self.held.get(token)
            if attempt is not None:
                # The operator renewed it after it was sent; so counting from then is never too long.
                attempt.lease_end = sent_at + attempt.lease.lease_ms / 1000
                attempt.renew_at = sent_at + attempt.lease.lease_ms / 3000
                self._sweep_by(attempt.renew_at, now)
        for token in answer.fenced:
            self._stop(token, Stop.FENCED, now)
        for token in answer.cancel:
            self._stop(token, Stop.CANCELLED, now)

    # The clocks of what runs.

    def _stop(self, token: int, stop: Stop, now: float) -> None:
        attempt = self.held.get(token)
        if attempt is None:
            return
        attempt.ask_to_stop(stop, now)
        if stop is Stop.FENCED:
            _log.warning("attempt %s of run %s is no longer ours: its handler is stopped", token, attempt.lease.run)
            attempt.ended = True
            self.ended(attempt, None)
        else:
            self._sweep_by(attempt.give_up_at, now)

    def _sweep_by(self, due: float, now: float) -> None:
        """See to it that the clocks are looked at by then (seconds of `time.monotonic`)."""
        if due >= self._sweep_at:
            return
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        self._sweep_at = due
        self._sweep_handle = asyncio.get_running_loop().call_later(max(0.0, due - now), self._sweep)

    def _sweep(self) -> None:
        """One look at every attempt that runs: one timer for all, since a timer for each would cost more than to run
        a short handler."""
        self._sweep_at, self._sweep_handle = inf, None
        now = monotonic()
        due = now + _SWEEP_SECONDS
        for token, attempt in list(self.held.items()):
            if attempt.stop is None:
                if now >= attempt.timeout_at:
                    self._stop(token, Stop.TIMEOUT, now)
                elif now >= attempt.lease_end:
                    _log.warning(
                        "the lease of run %s was not renewed in time: its handler is stopped", attempt.lease.run
                    )
                    self._stop(token, Stop.LEASE_LOST, now)
            elif now >= attempt.give_up_at:
                _log.warning(
                    "the handler of run %s did not stop in time: given up, its slot stays taken", attempt.lease.run
                )
                attempt.ended = True
                self.ended(attempt, None if attempt.stop is Stop.DRAIN else failure(attempt, gave_up=True))
                continue
            if now >= attempt.renew_at or attempt.progress is not attempt.progress_sent:
                self._renewals_due = True
                self._wake.set()
            timed = min(attempt.timeout_at, attempt.lease_end) if attempt.stop is None else attempt.give_up_at
            due = min(due, timed, max(attempt.renew_at, now + 0.05))
        if self.held:
            self._sweep_by(due, now)

    # The leader: losing it and finding it.

    def _check_epoch(self, epoch: int) -> None:
        if epoch < self.epoch:
            raise NotLeaderError(f"{self.url} answered in epoch {epoch}, but epoch {self.epoch} has begun")
        self.epoch = epoch

    async def _recover(self, error: UnreachableError | RefusedError, backoff: Backoff) -> None:
        """Wait a little, then find out where the leader is."""
        level = logging.WARNING if monotonic() - self._warned_at > 30 else logging.DEBUG
        if level == logging.WARNING:
            self._warned_at = monotonic()
        _log.log(level, "%s; trying again", error)
        await asyncio.sleep(backoff.next())
        await self._look_up(self)

    # Leaving.

    async def drain(self, deadline: float) -> None:
        """Take nothing new, let handlers finish until `deadline` (seconds of `time.monotonic`), report, say goodbye."""
        self._draining = True
        await self._end_pulling()
        await self._until_empty(deadline)
        if self.held:
            now = monotonic()
            _log.warning("%d handlers did not finish in the drain timeout: they are stopped", len(self.held))
            grace = max(attempt.lease.grace_ms for attempt in self.held.values()) / 1000
            for token in list(self.held):
                self._stop(token, Stop.DRAIN, now)
            await self._until_empty(now + min(grace, _LEAVING_SECONDS))
        self._leaving = True
        self._wake.set()
        await asyncio.wait(self._reporting, timeout=max(_LEAVING_SECONDS, deadline - monotonic()))
        if not self._left:
            _log.warning("the operator did not answer the last report: it will notice the loss of this worker itself")

    async def close(self) -> None:
        """End the loops, whatever they are at."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _end_pulling(self) -> None:
        """Tell the operator, so that it ends the open pull; leases that are under way in its answer are given back.
        Cutting the connection instead would lose them until their leases end."""
        request = self._pull_request(sorted(self._handlers), free=0, wait_ms=0)
        try:
            self._accept(await self._client.pull(self.url, request, timeout=_LEAVING_SECONDS))
        except (UnreachableError, RefusedError) as error:
            _log.debug("the operator could not be told of the drain: %s", error)
        else:
            await asyncio.wait([self._pulling], timeout=1)
        self._pulling.cancel()

    async def _until_empty(self, deadline: float) -> None:
        if self.held:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), max(0.0, deadline - monotonic()))
            except TimeoutError:
                return


def _no_handler(token: int, name: str, handlers: Mapping[str, Handler]) -> ErrorReport:
    known = ", ".join(sorted(handlers)) or "none"
    return ErrorReport(
        token=token,
        type="HandlerNotFound",
        message=f"this worker has no handler {name!r}; it has {known}: check spec.handler and the @task names",
    )
