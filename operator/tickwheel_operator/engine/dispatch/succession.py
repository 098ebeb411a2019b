"""Which process has a worker's place: the one that speaks, or one that came after it.

A worker process that was replaced may still be heard: a pull or a goodbye that was long on its way, the end of its
container told late. `engine.dispatch.leasing` asks here before it takes such a word for one of the process that works
now. The ledger's numbers say who came later where it knows both; else the starts of the processes do, which are of one
clock as long as the worker stays on its node. Where neither says, whoever speaks is taken for the later one.
Invariant: a wrong clock costs a new process no more than the silence, or the leases, of the one before it.
"""

from __future__ import annotations

from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.messages import WorkerGone, WorkerSeen
from tickwheel_operator.engine.model.runs import WorkerName
from tickwheel_operator.engine.model.state import State

__all__ = ["Succession", "is_meant"]


class Succession:
    """Reads only."""

    def __init__(self, state: State, router: Router) -> None:
        self._state = state
        self._router = router

    def successor(self, seen: WorkerSeen) -> str:
        """The instance of a process that surely came after the one that speaks, and lives or holds attempts; empty:
        there is none."""
        worker = self._router.find(seen.key)
        if worker is not None:
            later = worker.instance != seen.instance and self._is_before(seen, worker.number, worker.started_ms)
            return worker.instance if later else ""
        for number in self._state.processes(seen.key):
            other = self._state.workers[number]
            if (
                other.instance != seen.instance
                and self._state.attempts_of(number)
                and self._is_before(seen, number, other.started_ms)
            ):
                return other.instance
        return ""

    def _is_before(self, seen: WorkerSeen, number: int, started_ms: int) -> bool:
        own = self._state.number_of(seen.key, seen.instance)
        if own and number:
            return own < number
        return 0 < seen.started_ms < started_ms


def is_meant(gone: WorkerGone, process: WorkerName) -> bool:
    """Whether it is this process that is gone, as far as anybody knows."""
    if gone.instance:
        return gone.instance == process.instance
    if gone.pod_uid and process.pod_uid and gone.pod_uid != process.pod_uid:
        return False
    return not gone.before_ms or not process.started_ms or process.started_ms < gone.before_ms
