"""Which of the workers that wait for a handler may get a dispatch at all: small predicates.

Whoever waits has the handler and credit to spare. A strategy (`engine.dispatch.strategies`) chooses among those that
are left.
"""

from __future__ import annotations

from tickwheel_operator.engine.dispatch.worker import LiveWorker

__all__ = ["has_slots_to_spare", "knows_the_time"]


def knows_the_time(worker: LiveWorker) -> bool:
    """Work ahead of its instant is for those that know when that is."""
    return worker.early


def has_slots_to_spare(worker: LiveWorker) -> bool:
    """For a backfill's run: one slot of each worker is left for what is due now, where it has several."""
    return worker.free > 1 or worker.slots <= 1
