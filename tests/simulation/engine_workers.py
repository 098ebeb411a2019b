"""The workers of a story: processes that pull and report as none should."""

from __future__ import annotations

import msgspec
from tests.simulation.engine_leaders import HANDLERS, NAMESPACE, Leaders, Process

from tickwheel_operator.engine import messages as m

__all__ = ["Workers"]


class Workers(Leaders):
    """The story, with its workers."""

    def _start_worker(self, place: m.WorkerKey | None = None) -> None:
        """A new process, in this place or in any."""
        self._numbers += 1
        if place is None:
            pool = self.chance.choice(("pool", "pool", "pool", "second"))
            place = m.WorkerKey(NAMESPACE, pool, f"w{self.chance.randrange(3)}")
        process = Process(place, self._numbers, self.chance)
        for before in [p for p in self.processes if p.key == process.key]:
            self.processes.remove(before)
            self.gone.append(before)
        self.processes.append(process)

    def _pull(self) -> None:
        if self.chance.random() < 0.02 or len(self.processes) < 2:
            self._start_worker()
        process = self.chance.choice(self.processes)
        free = max(0, process.slots - len(process.held))
        received = process.received
        if process.draining or self.chance.random() < 0.05:
            process.draining = not process.draining
        if self.chance.random() < 0.05:
            process.handlers = self.chance.choice((HANDLERS, ("work",), ()))
        self._send_pull(process, received, free)

    def _send_pull(self, process: Process, received: int, free: int) -> None:
        self._numbers += 1
        pull = m.Pull(
            request=f"pull {self._numbers}", worker=process.seen(), free=free, received=received,
            sequence=len(process.pulls) + 1,
            until_ms=self.wall_ms + self.chance.choice((0, 50, 1_000, 20_000)),
        )  # fmt: skip
        process.pulls.append(pull)
        for request in [r for r, p in self.requests.items() if p is process]:
            del self.requests[request]  # it waits for one answer at a time
        self.requests[pull.request] = process
        self.do(pull)

    def _stale_pull(self) -> None:
        """One that was long on its way, or came twice."""
        process = self.chance.choice([*self.processes, *self.gone[-1:]])
        live = self.account.live.get(process.key)
        known = live is not None and live.seen.instance == process.instance
        if known and (not live.certain or self.account.boot_ms - live.heard_boot_ms > 1_000):
            return  # it may be known to be lost, or not
        if process.pulls:
            self._numbers += 1
            old = msgspec.structs.replace(self.chance.choice(process.pulls), request=f"pull {self._numbers}")
            self.do(old)
            self._commit()

    def _hang_up(self) -> None:
        if self.requests:
            request = self.chance.choice(list(self.requests))
            del self.requests[request]
            self.do(m.PullEnded(request=request))
        self.do(m.PullEnded(request="unheard of"))

    def _lose_worker(self) -> None:
        if not self.processes:
            return
        process = self.chance.choice(self.processes)
        instance = self.chance.choice((process.instance, "", "another"))
        if instance != "another":
            self.processes.remove(process)
            self.gone.append(process)
        before_ms = process.started_ms + 1 if process.started_ms and not instance else 0
        self.do(m.WorkerGone(key=process.key, instance=instance, before_ms=before_ms))
        late = [gone for gone in self.gone if gone.started_ms]
        if late:
            gone = self.chance.choice(late)  # the end of one before, told late
            self.do(m.WorkerGone(key=gone.key, before_ms=gone.started_ms + 1))

    def _late_word(self) -> None:
        """A report of a process whose place another has, or had."""
        if not self.gone:
            return
        process = self.chance.choice(self.gone)
        self._send_report(process, **self._outcomes(process), leaving=self.chance.random() < 0.2)

    def _report(self) -> None:
        if not self.processes:
            return
        process = self.chance.choice(self.processes)
        leaving = self.chance.random() < 0.02
        what = self._outcomes(process)
        if leaving:
            self.processes.remove(process)
            self.gone.append(process)
        self._send_report(process, **what, leaving=leaving)

    def _outcomes(self, process: Process) -> dict[str, list]:  # type: ignore[type-arg]
        """What it says of its own tokens, and of some that are not its own."""
        chance = self.chance
        what: dict[str, list] = {  # type: ignore[type-arg]
            "succeeded": [], "results": [], "failed": [], "returned": [], "renew": [], "progress": [],
        }  # fmt: skip
        tokens = [token for token in process.held if chance.random() < 0.6]
        foreign = [t for p in (*self.processes, *self.gone) if p is not process for t in p.held]
        if foreign and chance.random() < 0.3:
            tokens.append(chance.choice(foreign))
        if self.ended and chance.random() < 0.3:
            tokens.append(chance.choice(self.ended))
        if chance.random() < 0.1:
            tokens.append(chance.choice((0, 1, 10**6)))
        if tokens and chance.random() < 0.3:
            tokens += chance.choices(tokens, k=2)
        kind = ""
        for token in tokens:
            if not kind or chance.random() < 0.6:
                kind = chance.choices(("succeeded", "results", "failed", "returned", "renew"), (4, 2, 2, 1, 4))[0]
            match kind:
                case "results":
                    what[kind].append((token, b'{"n":%d}' % token))
                case "failed":
                    timeout, text = chance.random() < 0.2, "no" * chance.choice((1, 400))
                    what[kind].append(
                        m.FailedAttempt(token=token, error_type="E", message=text, traceback=text, timeout=timeout)
                    )
                case _:
                    what[kind].append(token)
            if kind != "renew" and process.held.pop(token, None) is not None:
                self.ended.append(token)
            elif chance.random() < 0.2:
                what["progress"].append((token, 0.5, "half"))
        return what

    def _send_report(self, process: Process, **what: object) -> None:
        self._numbers += 1
        self.do(m.Report(request=f"report {self._numbers}", worker=process.seen(), **what))  # type: ignore[arg-type]
        if self.chance.random() < 0.15:
            self._numbers += 1
            self.do(m.Report(request=f"report {self._numbers}", worker=process.seen(), **what))  # type: ignore[arg-type]

    def _renew_long(self) -> None:
        """Workers that renew for minutes what their time-outs should have ended."""
        pause_ms = 7_000 if self.config.lease_ms > 2_000 else 1_000
        for _ in range(6):
            self._pull()
            self._commit()
        self.do(m.IntakeHeld(reason="so that no thousand runs are made meanwhile"))
        for _ in range(130_000 // pause_ms):
            if not any(process.held for process in self.processes):
                break
            self.wall_ms += pause_ms
            self.boot_ms += pause_ms
            for process in self.processes:
                if process.held:
                    self._send_report(process, renew=list(process.held))
        self.do(m.IntakeHeld(reason=""))
