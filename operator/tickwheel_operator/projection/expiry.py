"""TaskRuns that people made and that nobody needs any more: which are deleted, and when.

An object goes `ttlSecondsAfterFinished` after its run ended. One without that field stays for an hour at least, so that
whoever waits for it sees the end, and then until its task has more of its kind than `spec.history` keeps. The projector
asks, and deletes. Invariants: only an object whose stored status is final is ever named; nothing is decided from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from tickwheel_operator.api.policies import History
from tickwheel_operator.clock import Clock
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.taskrun import TASK_RUN, SeenRun
from tickwheel_operator.projection.writer import Writer

__all__ = ["KEPT_MS", "Expiry", "expired"]

_log = logging.getLogger(__name__)
KEPT_MS = 3_600_000
"""How long an ended TaskRun without a time of its own stays at least."""
_DEFAULT = History()


class Expiry:
    """Looks for them, and deletes them when their turn has come."""

    def __init__(self, writer: Writer, objects: Objects, clock: Clock) -> None:
        self._writer = writer
        self._objects = objects
        self._clock = clock

    async def run(self, found: Callable[[str], None], interval_s: float) -> None:
        """Call `found` with the uid of each, again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                uids = expired(self._objects, self._clock.now_ms())
            except Exception:
                # Old objects stay a while longer, and the projection goes on with everything else.
                _log.exception("the TaskRuns whose time is over could not be found; next try in %g s", interval_s)
                continue
            for uid in uids:
                found(uid)

    async def delete(self, uid: str) -> float | None:
        """Delete the object, unless it may stay longer by now. Raises `ApiError`."""
        run = self._objects.get(TASK_RUN, uid)
        if run is not None and _is_over(run, self._clock.now_ms()):
            await self._writer.delete_run(run.namespace, run.name, run.uid)
        return None


def expired(objects: Objects, now_ms: int) -> list[str]:
    """The uids of all TaskRuns that are to be deleted now."""
    with_ttl: list[str] = []
    ended: dict[tuple[str, str, bool], list[SeenRun]] = {}
    for seen in objects.all(TASK_RUN):
        if not seen.final or not seen.ended_ms:
            continue
        if seen.ttl_s is None:
            ended.setdefault((seen.namespace, seen.task, seen.succeeded), []).append(seen)
        elif _is_over(seen, now_ms):
            with_ttl.append(seen.uid)
    return [*with_ttl, *_beyond_history(objects, ended.items(), now_ms)]


def _is_over(seen: SeenRun, now_ms: int) -> bool:
    """Whether its time is over: that of its own, or the one that everyone has."""
    kept_ms = KEPT_MS if seen.ttl_s is None else seen.ttl_s * 1_000
    return seen.final and bool(seen.ended_ms) and now_ms >= seen.ended_ms + kept_ms


def _beyond_history(
    objects: Objects, ended: Iterable[tuple[tuple[str, str, bool], list[SeenRun]]], now_ms: int
) -> Iterator[str]:
    for (namespace, name, succeeded), runs in ended:
        task = objects.named(SCHEDULED_TASK, namespace, name)
        spec = task.spec if task is not None else None
        if spec is None:  # it is gone, or invalid now
            kept = _DEFAULT.succeeded if succeeded else _DEFAULT.failed
        else:
            kept = spec.keep_succeeded if succeeded else spec.keep_failed
        if len(runs) > kept:
            runs.sort(key=lambda run: run.ended_ms, reverse=True)
            yield from (run.uid for run in runs[kept:] if _is_over(run, now_ms))
