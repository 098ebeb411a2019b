"""Whether an attempt was rightly called lost, at the moment at which a leader decides it, while faults go on.

Each leader's engine is watched: what it hears of workers, and what it decides. An attempt may be lost when its process
is dead, was called gone or has left; when its leader heard nothing of it for the pool's silence; or when nobody renewed
its lease in time. Nothing here looks at what the engine remembers of these: it counts for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.ledger import facts as f

if TYPE_CHECKING:
    from tests.simulation.record import Record

__all__ = ["Losses"]

_UNRENEWED = "without a renewal"


class Losses:
    """What one leader heard of workers, from its first moment on. All instants are of its boot clock, in ms."""

    def __init__(self, record: Record, engine: Engine, boot_ms: int, *, lease_ms: int, silence_ms: int) -> None:
        self._record, self._lease_ms, self._silence_ms = record, lease_ms, silence_ms
        self._instances = {number: worker.instance for number, worker in engine.state.workers.items()}
        self._tokens = {d.run.number: token for token, d in engine.state.attempts.items()}
        """Run to the token of its newest attempt."""
        self._holders = {token: self._instances[d.worker] for token, d in engine.state.attempts.items()}
        self._renewed_ms = dict.fromkeys(self._holders, boot_ms)
        """Token to when it was leased or renewed, or this leader took over."""
        self._heard_ms: dict[str, int] = {}
        self._pulls: dict[str, int] = {}
        """Process to the newest of its pulls."""
        self._gone: set[str] = set()
        """Processes that somebody called gone, or that said that they leave."""
        self._watch(engine)

    def _watch(self, engine: Engine) -> None:
        handle, handle_all = engine.handle, engine.handle_all

        def watched(command: m.Command, now_ms: int, boot_ms: int) -> m.Output:
            if isinstance(command, m.WorkerGone):
                self._gone.add(command.instance)
            elif isinstance(command, m.Report) and command.leaving:
                self._gone.add(command.worker.instance)
            output = handle(command, now_ms, boot_ms)
            for fact in output.facts:
                self._decided(fact, boot_ms)
            self._hear(command, boot_ms)  # what is overdue is settled before the engine hears the command
            return output

        def all_watched(commands: Iterable[m.Command], now_ms: int, boot_ms: int) -> m.Output:
            output = handle_all(commands, now_ms, boot_ms)  # of objects: no worker speaks
            for fact in output.facts:
                self._decided(fact, boot_ms)
            return output

        engine.handle = watched  # type: ignore[method-assign, assignment]
        engine.handle_all = all_watched  # type: ignore[method-assign]

    def _hear(self, command: m.Command, boot_ms: int) -> None:
        match command:
            case m.Pull(worker=seen, sequence=sequence) if sequence > self._pulls.get(seen.instance, 0):
                self._pulls[seen.instance], self._heard_ms[seen.instance] = sequence, boot_ms
            case m.Report(worker=seen, renew=tokens):
                self._heard_ms[seen.instance] = boot_ms
                for token in tokens:
                    if self._holders.get(token) == seen.instance:
                        self._renewed_ms[token] = boot_ms
            case _:
                pass

    def _decided(self, fact: f.Fact, boot_ms: int) -> None:
        match fact:
            case f.WorkerNamed():
                self._instances[fact.worker] = fact.instance
            case f.Leased():
                for token, number in enumerate(fact.dispatches, start=fact.first_token):
                    self._tokens[number], self._holders[token] = token, self._instances[fact.worker]
                    self._renewed_ms[token] = boot_ms
            case f.Failed(token=token, reason=f.FailureReason.LOST, message=message):
                self._check(token, message, boot_ms)
            case f.Cancelled(run=number, message=message) if "was lost" in message or _UNRENEWED in message:
                self._check(self._tokens[number], message, boot_ms)
            case _:
                pass

    def _check(self, token: int, why: str, boot_ms: int) -> None:
        record, instance = self._record, self._holders[token]
        if not record.alive(instance):
            return
        if _UNRENEWED in why:
            left_ms = self._renewed_ms[token] + self._lease_ms - boot_ms
            if left_ms > 0:
                record.violated(f"token {token} is lost with {instance}, {left_ms} ms before its lease ends: {why}")
            record.say("world", f"{instance} lives, and did not renew token {token}")
            return
        heard_ms = self._heard_ms.get(instance)
        if instance not in self._gone and heard_ms is not None and boot_ms - heard_ms <= self._silence_ms:
            record.violated(f"token {token} is lost with {instance}, heard {boot_ms - heard_ms} ms ago: {why}")
        if instance not in self._gone and heard_ms is None:
            record.violated(f"token {token} is lost with {instance}, which lives and was not called gone: {why}")
        record.say("world", f"{instance} lives, and is lost: {why}")
