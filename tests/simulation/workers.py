"""Worker processes as actors: they speak the protocol as the SDK does, and tell the record what their handlers did."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.loop import Node
from tests.simulation.operators import LEASE_MS, POOL, NotLeading, Operator
from tests.simulation.world import Lost, SimClock, World

from tickwheel_operator.engine.messages import (
    Delivery,
    FailedAttempt,
    Pull,
    Pulled,
    Report,
    Reported,
    WorkerKey,
    WorkerSeen,
)

__all__ = ["Worker"]

_RENEW_S = LEASE_MS / 3000
_GRACE_S = 0.3


class Worker:
    """One process. A restarted one is another object with the same name."""

    def __init__(
        self,
        world: World,
        name: str,
        operators: Callable[[], Sequence[Operator]],
        slots: int,
        stuck: Callable[[Worker], None],
        *,
        clumsy: bool = False,
    ) -> None:
        """`stuck` is called when a handler does not stop within its grace: somebody must end the process. One that is
        `clumsy` names a token twice in some reports."""
        self._clumsy = random.Random(f"{name} {world.now_ms()}") if clumsy else None
        self._stuck = stuck
        self._world = world
        self.key = WorkerKey(POOL.namespace, POOL.name, name)
        self.instance = f"{name}-{world.random.getrandbits(24):06x}"
        self.node = Node(self.instance)
        self.started_ms = world.now_ms()
        self._operators = operators
        self._slots = slots
        self._clock = SimClock(world)
        self.quality = world.random.choice(("good", "good", "vague", "none", "wild", "liar"))
        """What its estimate of the leader's clock is worth: `wild` is far off and knows it, `liar` does not."""
        if self.quality == "wild":
            self._clock.offset_ms += world.random.choice((-5_000, 5_000))
        self._lie_us = world.random.choice((-300_000, -40_000, 40_000, 300_000))
        world.record.clock_quality[self.instance] = self.quality
        self._offset_us = 0
        self._wrong_us = 0
        self._stopping: dict[int, asyncio.Task[object]] = {}
        """Handlers that were asked to stop, and what sees to it."""
        self._begun: set[int] = set()
        self._epoch = 0
        self._received = 0
        self._pulls = 0
        self._held: dict[int, asyncio.Task[object]] = {}
        self._seen: set[int] = set()
        self._succeeded: list[int] = []
        self._results: list[tuple[int, bytes]] = []
        self._failed: list[FailedAttempt] = []
        self._returned: list[int] = []
        self._wake = asyncio.Event()
        self._draining = False
        self._sending = 0
        self._leaving = False

    def start(self) -> None:
        self._world.spawn(self.node, self._pulling(), "pull")
        for _ in range(2):  # reports under way at once, as the SDK has them
            self._world.spawn(self.node, self._reporting(), "report")

    def drain(self) -> None:
        """SIGTERM: give back what has not begun, finish the rest, leave."""
        self._draining = True
        self._wake.set()

    def _identity(self) -> WorkerSeen:
        return WorkerSeen(
            key=self.key, instance=self.instance, started_ms=self.started_ms, handlers=("work",), slots=self._slots,
            draining=self._draining,
            clock_offset_us=self._offset_us,
            clock_error_us={"none": None, "vague": 25_000}.get(self.quality, 3_000),
        )  # fmt: skip

    def _estimate(self, operator: Operator) -> None:
        """What it believes of that leader's clock from now on."""
        true_us = self._clock.now_us() - operator.clock.now_us()
        self._wrong_us = self._world.random.randint(-2_000, 2_000)
        if self.quality == "vague":
            self._wrong_us *= 10
        elif self.quality == "liar":
            self._wrong_us = self._lie_us
        self._offset_us = true_us + self._wrong_us

    def _leader(self) -> Operator | None:
        """Whoever says that it leads: two may, and this worker does not know which of them is right."""
        leading = [o for o in self._operators() if o.leads]
        return self._world.random.choice(leading) if leading else None

    # --- pulling ---

    async def _pulling(self) -> None:
        while not self._draining:
            free = self._slots - len(self._held)
            operator = self._leader()
            if operator is None or free <= 0:
                await asyncio.sleep(0.03)
                continue
            self._estimate(operator)
            self._pulls += 1
            pull = Pull(
                request=0, worker=self._identity(), free=free, received=self._received, sequence=self._pulls,
                until_ms=operator.clock.now_ms() + 1_000,
            )  # fmt: skip
            try:
                answer = await operator.call(pull, 2.5)
            except (Lost, NotLeading):
                await asyncio.sleep(self._world.random.uniform(0.01, 0.1))
                continue
            if answer.epoch < self._epoch or not isinstance(answer.effect, Pulled):
                continue
            self._epoch = answer.epoch
            self._estimate(operator)
            for delivery in answer.effect.deliveries:
                self._take(delivery)
            self._cancel(answer.effect.cancel)

    def _take(self, delivery: Delivery) -> None:
        token = delivery.token
        self._world.record.delivered(self.instance, token, delivery.run_id)
        self._received = max(self._received, token)
        if token in self._seen:
            return
        self._seen.add(token)
        if self._draining or len(self._held) >= self._slots:
            self._returned.append(token)
            self._wake.set()
            return
        ahead_us = 0
        if delivery.not_before_ms:  # By the clock of whom it comes from: the next pull may go to another.
            ahead_us = delivery.not_before_ms * 1_000 - (self._clock.now_us() - self._offset_us)
        self._held[token] = self._world.spawn(self.node, self._handle(delivery, ahead_us), "handler")

    def _stop(self, tokens: Sequence[int]) -> None:
        """Fenced: nobody wants the outcome."""
        for token in tokens:
            task = self._held.pop(token, None)
            if task is not None:
                task.cancel()
                self._world.record.stopped(token)

    def _cancel(self, tokens: Sequence[int]) -> None:
        """The leader wants these to stop, and to hear that they did."""
        for token in tokens:
            if token not in self._seen:
                # Its lease has not come: it is given back, and not begun if it still comes.
                self._seen.add(token)
                self._received = max(self._received, token)
                self._returned.append(token)
                self._wake.set()
                continue
            task = self._held.get(token)
            if task is None or token in self._stopping:
                continue
            if token not in self._begun:
                task.cancel()
                del self._held[token]
                self._returned.append(token)
                self._wake.set()
                continue
            self._stopping[token] = self._world.spawn(self.node, self._see_it_stop(token, task), "stopping")

    async def _see_it_stop(self, token: int, task: asyncio.Task[object]) -> None:
        """Most handlers stop soon, some take their time, some go on to their end, and some never stop."""
        fate = self._world.random.random()
        if fate < 0.05:
            self._world.record.say(self.instance, f"cannot stop token {token}")
            await asyncio.sleep(_GRACE_S)
            if token in self._held:
                self._stuck(self)
            return
        if fate < 0.15:
            return  # it pays no heed, and ends in its time
        await asyncio.sleep(self._world.random.uniform(0.001, 0.02 if fate < 0.7 else 0.28))
        if token in self._held:
            task.cancel()
            del self._held[token]
            self._world.record.say(self.instance, f"has stopped token {token}")
            self._world.record.finished(token, "cancelled")
            self._failed.append(FailedAttempt(token=token, error_type="Cancelled"))
            self._wake.set()

    # --- handlers ---

    async def _handle(self, delivery: Delivery, ahead_us: int) -> None:
        world, record, token = self._world, self._world.record, delivery.token
        if ahead_us > 0:
            await asyncio.sleep(ahead_us / 1_000_000)
        if self._draining:
            self._held.pop(token, None)
            self._returned.append(token)
            self._wake.set()
            return
        self._begun.add(token)
        record.say(self.instance, f"starts {delivery.run_id} #{delivery.attempt} token {token}")
        record.started(self.instance, token, delivery.run_id)
        fate = world.random.random()
        lasts_s = world.random.uniform(1.0, 2.5) if fate < 0.05 else world.random.uniform(0.001, 0.06)
        limit_ms = delivery.task.timeout_ms
        if limit_ms is not None and lasts_s * 1_000 > limit_ms:
            await asyncio.sleep(limit_ms / 1_000)
            record.finished(token, "timeout")
            self._failed.append(FailedAttempt(token=token, error_type="TimeoutError", timeout=True))
        else:
            await asyncio.sleep(lasts_s)
            if fate > 0.9:
                record.finished(token, "error")
                self._failed.append(FailedAttempt(token=token, error_type="ValueError", message="no"))
            elif fate > 0.7:
                result = b'{"n":%d}' % token
                record.finished(token, "ok", result)
                self._results.append((token, result))
            else:
                record.finished(token, "ok")
                self._succeeded.append(token)
        self._held.pop(token, None)
        self._wake.set()

    # --- reporting ---

    async def _reporting(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_RENEW_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if self._leaving:
                return
            self._sending += 1
            await self._report()
            self._sending -= 1
            if self._draining and not self._held and not self._outcomes() and not self._sending:
                self._leaving = True
                await self._report(leaving=True)
                return

    def _outcomes(self) -> int:
        return len(self._succeeded) + len(self._results) + len(self._failed) + len(self._returned)

    def _repeat(self, *lists: list[Any]) -> None:
        """Name what is in one list twice there, or what has ended in `renew`, too."""
        assert self._clumsy is not None
        succeeded, renew = lists[0], lists[-1]
        if succeeded and self._clumsy.random() < 0.3:
            renew += succeeded
            self._world.record.say(self.instance, "names twice what has succeeded, and renews it")
        filled = [one for one in lists if one]
        if filled:
            twice = self._clumsy.choice(filled)
            twice += twice
            self._world.record.say(self.instance, f"names twice {twice[0]!r:.40}")

    async def _report(self, *, leaving: bool = False) -> None:
        """Send what there is until it is answered: the same again, to whoever leads then."""
        succeeded, self._succeeded = self._succeeded, []
        results, self._results = self._results, []
        failed, self._failed = self._failed, []
        returned, self._returned = self._returned, []
        renew = list(self._held)
        if self._clumsy is not None and self._clumsy.random() < 0.4:
            self._repeat(succeeded, results, failed, returned, renew)
        if not (succeeded or results or failed or returned or renew or leaving):
            return
        report = Report(
            request=0, worker=self._identity(), succeeded=succeeded, results=results, failed=failed, returned=returned,
            renew=renew, leaving=leaving,
        )  # fmt: skip
        while True:
            operator = self._leader()
            if operator is None:
                await asyncio.sleep(0.05)
                continue
            try:
                answer = await operator.call(report, 0.8)
            except (Lost, NotLeading):
                await asyncio.sleep(self._world.random.uniform(0.01, 0.1))
                continue
            if answer.epoch >= self._epoch and isinstance(answer.effect, Reported):
                break
        self._epoch = answer.epoch
        told = [*succeeded, *(t for t, _ in results), *(a.token for a in failed), *returned]
        self._world.record.acknowledged(told, answer.effect)
        self._stop(answer.effect.fenced)
        self._cancel(answer.effect.cancel)
