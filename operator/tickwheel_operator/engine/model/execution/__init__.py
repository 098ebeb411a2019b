"""How runs are divided into dispatches: one module for each kind of execution.

`execution` says what a member must do. `Single` has one dispatch; `Backfill` has none of its own, it makes runs. To add
one: a module here, the facts that it needs with their folds, and `row_of` and `restored` for checkpoints.
"""

from __future__ import annotations

from tickwheel_operator.engine.model.execution.backfill import BACKFILLED, Backfill, BackfillRow
from tickwheel_operator.engine.model.execution.execution import Execution
from tickwheel_operator.engine.model.execution.single import SINGLE
from tickwheel_operator.ledger.facts import Origin

__all__ = ["restored", "row_of"]


def row_of(execution: Execution) -> BackfillRow | None:
    """What a checkpoint holds of it; None: nothing, it follows from the run's origin."""
    return execution.row() if isinstance(execution, Backfill) else None


def restored(origin: Origin, backfill: BackfillRow | None) -> Execution:
    """The execution of a run that a checkpoint holds."""
    if backfill is not None:
        return Backfill.restored(backfill)
    return BACKFILLED if origin is Origin.BACKFILL else SINGLE
