"""What the engine promises, checked against an account that is not its own.

`engine_driver.py` gives it each command with the facts and effects that came of it. It keeps its own short account of
runs, tokens, pulls and leases, and looks at nothing in the engine: so a fault of the fold cannot hide itself here. What
the facts say is in `engine_fold.py`, what is asked of each of them in `engine_checks.py`; here it is what the engine
answers, and what it should have done.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tests.simulation.engine_checks import STOP_PATIENCE_MS, FactChecks
from tests.simulation.engine_fold import LONGEST_LEAD_MS, Run, Worker, is_meant

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Account"]


class Account(FactChecks):
    """All that the engine promises."""

    # --- taking over ---

    def take_over(self, facts: Iterable[f.Fact], now_ms: int, boot_ms: int) -> None:
        """Another leader has folded these; it has heard of nobody yet."""
        self.clear()
        self.wall_ms = self.now_ms = now_ms
        self.boot_ms = boot_ms
        self.leads = False
        for fact in facts:
            self.fold(fact)
        self.leads = True
        replayed_ms = self.clock_ms
        self.unknown = {uid for uid in self.uids.values() if uid in self.paused}
        self.unheard = set(self.uids.values())
        for run in self.runs.values():
            self._waits_until(run, run.ready_ms)
            run.waits_boot_ms = boot_ms
            run.placed = run.token > 0
            run.delayed = run.origin is Origin.REQUEST and not run.deliveries and run.ready_ms > replayed_ms
        for attempt in self.attempts.values():
            # By the clock of this leader its start may be ahead.
            most_boot_ms = boot_ms + LONGEST_LEAD_MS
            attempt.due_boot_ms = attempt.run.soonest_boot_ms
            attempt.soonest_boot_ms = attempt.begins_boot_ms = min(attempt.due_boot_ms, most_boot_ms)
            attempt.begins_by_boot_ms = min(attempt.run.due_boot_ms, most_boot_ms)
            attempt.least_boot_ms = attempt.begins_boot_ms + self.config.lease_ms
            attempt.most_boot_ms = attempt.begins_by_boot_ms + self.config.lease_ms

    # --- a command ---

    def gathered(self, effects: Iterable[m.Effect]) -> None:
        """Answers that waited for the next append."""
        self._told = set()
        for effect in effects:
            self._effect(effect)

    def handled(self, command: m.Command, output: m.Output, now_ms: int, boot_ms: int) -> None:
        """What came of a command."""
        self.wall_ms, self.now_ms = now_ms, max(self.now_ms, now_ms)
        self.boot_ms = max(self.boot_ms, boot_ms)
        self._command = command
        before = {token: attempt.run.number for token, attempt in self.attempts.items()}
        holders = {token: self.workers[attempt.worker] for token, attempt in self.attempts.items()}
        self._to_tell, self._told = [], set()
        self._hear(command)
        for fact in output.facts:
            self._check(fact, command)
            self.fold(fact)
        self._check_latest(output.facts)
        for effect in output.effects:
            self._effect(effect)
        if isinstance(command, m.PullEnded) and command.request in self.pulls:
            self.broken_off.add(command.request)
            self._pull_over(command.request)
        if isinstance(command, m.WorkerGone):
            live = self.live.get(command.key)
            if live is not None and is_meant(command, live.seen.instance, live.seen.started_ms):
                del self.live[command.key]
        if isinstance(command, m.Pull):
            self._refused(command, output)
        if isinstance(command, m.Report):
            self._report(command, output, before, holders)
        elif isinstance(command, m.Submit):
            self._submit(command, output)
        elif isinstance(command, m.Pull):
            self._sent_again(command, output, holders)
        elif isinstance(command, m.WorkerGone):
            self._gone(command)
        elif isinstance(command, m.TaskAbandoned):
            self._abandoned(command)
        for request, token in self._to_tell:
            if (request, token) not in self._told:
                self.broken(f"the pull {request!r} is open, and is not told to stop token {token}")
        self._overdue(command)

    def _hear(self, command: m.Command) -> None:
        if isinstance(command, m.TaskApplied | m.TaskRemoved):
            uid = command.spec.uid if isinstance(command, m.TaskApplied) else command.uid
            self.rests = {task: boot_ms for task, boot_ms in self.rests.items() if self.uids.get(task) != uid}
        match command:
            case m.TaskApplied(spec=spec):
                self._applied(spec)
            case m.TaskRemoved(uid=uid, forget=forget):
                self.unheard.discard(uid)
                spec = self.specs.pop(uid, None) or self.paused.pop(uid, None)
                if not forget and spec is not None:
                    self.paused[uid] = spec
                for run in self._runs_of(uid) if not self.synced else ():
                    run.undecided = True  # its leader does not know the task
            case m.PoolApplied(spec=spec):
                self.silences.setdefault(spec.name, set()).add(spec.silence_ms)
            case m.CatalogSynced():
                self.synced = True
            case m.IntakeHeld(reason=reason):
                self.held = bool(reason)
                self.rests.clear()
            case m.LeadSet(lead_ms=lead_ms):
                self.lead_ms = max(self.lead_ms, lead_ms)  # what is near stays near
            case _:
                pass

    def _applied(self, spec: TaskSpec) -> None:
        uid = spec.uid
        self.paused.pop(uid, None)
        self.unknown.discard(uid)
        self.unheard.discard(uid)
        self.known.add(uid)
        self.specs[uid] = spec
        for run in self._runs_of(uid):
            self._settle_wait(run)
            run.undecided = not self._is_unlimited(run)
            run.placed = run.token > 0

    # --- answers to pulls ---

    def _effect(self, effect: m.Effect) -> None:
        if not isinstance(effect, m.Pulled):
            return
        request = effect.request
        if request in self.broken_off:
            self.broken(f"the pull {request!r} is answered, but broke off")
        if request in self.answered:
            self.broken(f"the pull {request!r} is answered twice")
        self.answered.add(request)
        self._told |= {(request, token) for token in effect.cancel}
        tokens = [delivery.token for delivery in effect.deliveries]
        if len(set(tokens)) < len(tokens):
            self.broken(f"the pull {request!r} is answered with a token twice: {tokens}")
        key = self.pulls.get(request)
        for delivery in effect.deliveries:
            attempt = self.attempts.get(delivery.token)
            if attempt is None:
                continue  # it ended in this very command
            if key is not None and self.workers[attempt.worker][0] != key:
                self.broken(f"{key} gets token {delivery.token}, which another worker holds")
            ahead = attempt.soonest_boot_ms - self.boot_ms
            # A delivery is made with its lease, and the clock may be set before the answer takes it along.
            offset_ms = min(self.wall_ms - self.boot_ms, attempt.offset_ms)
            if ahead > 2 and not delivery.not_before_ms >= attempt.soonest_boot_ms + offset_ms - 2:
                self.broken(f"token {delivery.token} starts in {ahead} ms, and is told {delivery.not_before_ms}")
            if delivery.attempt != attempt.run.deliveries:
                self.broken(f"token {delivery.token} is called delivery {delivery.attempt} of {attempt.run.deliveries}")
            spec = self._spec(attempt.run)
            if spec is not None:
                wanted = merge(spec.parameters, attempt.run.parameters) if attempt.run.parameters else spec.parameters
                if attempt.run.origin is not Origin.BACKFILL and delivery.parameters != wanted:
                    self.broken(f"token {delivery.token} comes with {delivery.parameters!r}, not {wanted!r}")
        self._check_patience(effect, key)
        self._pull_over(request)

    def _check_patience(self, effect: m.Pulled, key: m.WorkerKey | None) -> None:
        """Nothing comes before the time is up, unless there is something to say or the worker has moved on."""
        live = self.live.get(key) if key is not None else None
        if effect.deliveries or effect.cancel or live is None or live.pull != effect.request:
            return
        match self._command:
            case m.Pull(worker=seen) | m.Report(worker=seen) if seen.key == key:
                return
            case m.WorkerGone(key=gone) if gone == key:
                return
            case _:
                pass
        if self.boot_ms < live.until_boot_ms:
            self.broken(f"the pull {effect.request!r} is answered {live.until_boot_ms - self.boot_ms} ms too early")

    def _pull_over(self, request: Hashable) -> None:
        key = self.pulls.pop(request, None)
        live = self.live.get(key) if key is not None else None
        if live is not None and live.pull == request:
            live.pull = None
            live.heard_boot_ms = self.boot_ms

    # --- workers ---

    def pulled(self, command: m.Pull, now_ms: int, boot_ms: int) -> None:
        """Just before a pull is handled."""
        before = self.live.get(command.worker.key)
        same = before is not None and before.seen.instance == command.worker.instance
        if same and before is not None and 0 < command.sequence <= before.last_pull:
            self.outrun.add(command.request)
            self.pulls[command.request] = command.worker.key  # a later one came first: it is answered at once
            return
        self.displaced, self.outlived = before, self._is_outlived(command.worker)
        live = self.heard(command.worker, max(boot_ms, self.boot_ms))
        live.last_pull, live.certain = command.sequence, True
        live.seen, live.pull = command.worker, command.request
        live.until_boot_ms = max(boot_ms, self.boot_ms) + max(0, command.until_ms - now_ms)
        live.credit = 0 if command.worker.draining else min(command.free, self.config.max_leases_per_pull)
        self.pulls[command.request] = command.worker.key

    def reported(self, seen: m.WorkerSeen, boot_ms: int, leaving: bool) -> None:
        """Just after a report was handled: last words of a process that was replaced are no sign of life."""
        if self._is_outlived(seen):
            return
        if leaving:
            self.live.pop(seen.key, None)
        else:
            self.heard(seen, max(boot_ms, self.boot_ms))

    def _refused(self, command: m.Pull, output: m.Output) -> None:
        """A late pull of a process that was replaced is refused, and nothing is as if it had come."""
        if not any(isinstance(e, m.CommandRefused) and e.request == command.request for e in output.effects):
            return
        if not self.outlived:
            self.broken(f"{command.worker.instance} is refused, and no later process is known")
        self.pulls.pop(command.request, None)
        if self.displaced is None:
            self.live.pop(command.worker.key, None)
        else:
            self.live[command.worker.key] = self.displaced

    def _is_outlived(self, seen: m.WorkerSeen) -> bool:
        live = self.live.get(seen.key)
        if live is not None:
            other = live.seen
            return other.instance != seen.instance and self._is_before(seen, other.instance, other.started_ms)
        return any(
            key == seen.key and instance != seen.instance and self._is_before(seen, instance, self.started[number])
            for number, (key, instance) in self.workers.items()
            if any(attempt.worker == number for attempt in self.attempts.values())
        )

    def heard(self, seen: m.WorkerSeen, boot_ms: int) -> Worker:
        live = self.live.get(seen.key)
        if live is None or live.seen.instance != seen.instance:
            live = self.live[seen.key] = Worker(seen)
        elif boot_ms - live.heard_boot_ms > 1_000:
            live.certain = False
        live.heard_boot_ms = boot_ms
        return live

    # --- answers ---

    def _report(
        self, command: m.Report, output: m.Output, before: dict[int, int], holders: dict[int, tuple[m.WorkerKey, str]]
    ) -> None:
        answer = next((e for e in output.effects if isinstance(e, m.Reported)), None)
        if any(isinstance(e, m.CommandRefused) for e in output.effects):
            failed = [self.attempts[o.token] for o in command.failed if o.token in self.attempts]
            if not any(self.uids[attempt.run.task] in self.unheard for attempt in failed):
                self.broken("a report is refused, though all that has failed was heard of")
            return
        if answer is None:
            self.broken("a report is not answered")
        assert answer is not None
        ends = [*command.succeeded, *(t for t, _ in command.results), *(o.token for o in command.failed),
                *command.returned]  # fmt: skip
        fenced = set(answer.fenced)
        seen = (command.worker.key, command.worker.instance)
        lost = {fact.token for fact in output.facts if isinstance(fact, f.Failed)}
        for token in [*ends, *command.renew]:
            run = self.runs.get(before.get(token, 0))
            if token not in before and token not in fenced:
                self.broken(f"{seen} reports token {token}, which is not open, and is not fenced")
            if token in before and holders[token] != seen and token not in fenced:
                self.broken(f"{seen} reports token {token} of {holders[token]}, and is not fenced")
            open_still = token in before and token not in lost and token in self.attempts
            is_replaced = (live := self.live.get(seen[0])) is not None and live.seen.instance != seen[1]
            if token in fenced and open_still and holders[token] == seen and not is_replaced:
                self.broken(f"{seen} holds token {token}, and is fenced")
            if token in ends and token not in fenced and token in self.attempts:
                self.broken(f"{seen} was told that the end of token {token} is durable, and it is open")
            if token in command.renew and token in self.attempts and token not in fenced:
                attempt = self.attempts[token]
                attempt.least_boot_ms = max(self.boot_ms, attempt.soonest_boot_ms) + self.config.lease_ms
                attempt.most_boot_ms = max(self.boot_ms, attempt.begins_by_boot_ms) + self.config.lease_ms
                if run is not None and run.cancelling and token not in answer.cancel:
                    self.broken(f"{seen} renews token {token}, and is not told to stop it")
                spec = self._spec(attempt.run)
                limit = spec.timeout_ms if spec is not None and attempt.run.task in self.uids else None
                over = attempt.begins_by_boot_ms + (limit or 0) + (spec.grace_ms if spec else 0) + STOP_PATIENCE_MS
                if (
                    limit is not None
                    and self.uids[attempt.run.task] in self.specs
                    and self.boot_ms > over + self._sweep_ms
                ):
                    self.broken(f"token {token} is renewed {self.boot_ms - over} ms after its worker should stop it")

    def _sent_again(self, command: m.Pull, output: m.Output, holders: dict[int, tuple[m.WorkerKey, str]]) -> None:
        """What the worker has not received is sent again, and nothing else."""
        refused = any(isinstance(e, m.CommandRefused) and e.request == command.request for e in output.effects)
        if refused or command.request in self.outrun:
            return
        seen = (command.worker.key, command.worker.instance)
        wanted = {
            token
            for token, holder in holders.items()
            if holder == seen and token in self.attempts and token > command.received
            and not self.attempts[token].run.cancelling and self.uids[self.attempts[token].run.task] in self.known
        }  # fmt: skip
        got = [d.token for e in output.effects if isinstance(e, m.Pulled) and e.request == command.request
               for d in e.deliveries]  # fmt: skip
        if wanted - set(got):
            self.broken(f"{command.worker.instance} has not received {sorted(wanted)}, and is sent {got}")
        if again := {token for token in got if token in holders} - wanted:
            self.broken(f"{command.worker.instance} is sent {sorted(again)} again, and has received {command.received}")

    def _gone(self, command: m.WorkerGone) -> None:
        for token, attempt in self.attempts.items():
            key, instance = self.workers[attempt.worker]
            if self.uids[attempt.run.task] in self.unheard:
                continue
            if key == command.key and is_meant(command, instance, self.started[attempt.worker]):
                self.broken(f"token {token} is open with {instance}, whose pod is gone")

    def _abandoned(self, command: m.TaskAbandoned) -> None:
        left = [run.number for run in self.runs.values() if self.uids[run.task] == command.uid]
        if left and not self.synced:
            self.broken(f"{left} are open after {command}")

    def resent(self, tokens: Iterable[int]) -> None:
        """Leases that a pull got again: they last from now on."""
        for token in tokens:
            if (attempt := self.attempts.get(token)) is not None:
                attempt.most_boot_ms = max(
                    attempt.most_boot_ms, max(self.boot_ms, attempt.begins_by_boot_ms) + self.config.lease_ms
                )

    def _submit(self, command: m.Submit, output: m.Output) -> None:
        made = {fact.key for fact in output.facts if isinstance(fact, f.Submitted | f.Requested)
                and not (isinstance(fact, f.Requested) and fact.origin is not Origin.REQUEST)}  # fmt: skip
        answer = output.effects[-1] if output.effects else None
        for effect in output.effects:
            if isinstance(effect, m.Submitted | m.CommandRefused) and effect.request == command.request:
                answer = effect
        if isinstance(answer, m.CommandRefused):
            if made:
                self.broken(f"{command} was refused, and made {made}")
        elif isinstance(answer, m.Submitted):
            for wanted, run in zip(command.runs, answer.runs, strict=True):
                if run.created is not (wanted.key in made):
                    self.broken(f"the key {wanted.key}: created={run.created}, and made are {made}")
                known = run.run_id in self.keys or run.run_id in self.ended
                if not known:
                    self.broken(f"{run.run_id} was acknowledged, and is not there")
                if run.state.is_final and self.ended.get(run.run_id) != run.state:
                    self.broken(f"{run.run_id} is called {run.state}, and is {self.ended.get(run.run_id)}")
        else:
            self.broken(f"{command} has no answer")

    # --- what should have happened ---

    def _overdue(self, command: m.Command) -> None:
        if not self.synced:
            return
        for token, attempt in self.attempts.items():
            if self.uids[attempt.run.task] in self.unheard:
                attempt.put_off = True
                continue
            if (
                attempt.most_boot_ms + self._sweep_ms + 1 < self.boot_ms
                and self.uids[attempt.run.task] not in self.paused
            ):
                self.broken(f"token {token} is open {self.boot_ms - attempt.most_boot_ms} ms after its lease")
            key, instance = self.workers[attempt.worker]
            live = self.live.get(key)
            if live is not None and live.seen.instance != instance and not attempt.put_off:
                self.broken(f"token {token} is open with {instance}, whose place {live.seen.instance} has")
        for request, key in self.pulls.items():
            live = self.live.get(key)
            if live is None or live.pull != request:
                self.broken(f"the pull {request!r} of {key} was followed by another, and is open")
            elif live.until_boot_ms + self._sweep_ms + 1 < self.boot_ms:
                self.broken(f"the pull {request!r} is open {self.boot_ms - live.until_boot_ms} ms after its time")
        for live in self.live.values():
            if live.pull is None or live.credit <= 0 or live.seen.draining:
                continue
            for run in self.runs.values():
                if self._could_take(live, run):
                    self.broken(f"run {run.number} waits, and {live.seen.key.name} waits for work ({command})")

    def _could_take(self, live: Worker, run: Run) -> bool:
        spec = self.specs.get(self.uids[run.task])
        return (
            spec is not None
            and not run.token
            and run.origin not in (Origin.SPAN, Origin.BACKFILL)
            and spec.overlap.max_concurrent is None
            and spec.pool == live.seen.key.pool
            and spec.handler in live.seen.handlers
            and run.due_boot_ms < self.boot_ms
        )
