"""Whether the handler takes the parameters that a submission asks for, by the schemas that workers registered.

On the way of what people submit only, never of what a schedule fires. Invariants: a run that exists is never refused;
where no worker lives, or one takes anything, nothing is; long submissions let others have the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.messages import CommandRefused, RefusalReason, StartBackfill, Submission, Submit
from tickwheel_operator.engine.model.identity import keyed_run_id
from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.handlers.checking import Checkers
from tickwheel_operator.handlers.known import KnownSchemas

__all__ = ["ParameterCheck"]

_AT_ONCE_BYTES = 16 * 1024
"""Parameters that are checked before others have their turn."""


class ParameterCheck:
    """The check of submissions."""

    def __init__(self, schemas: KnownSchemas) -> None:
        self._schemas = schemas
        self._checkers = Checkers()

    async def refusal(self, engine: Engine, command: Submit | StartBackfill) -> CommandRefused | None:
        """Why the command is not carried out; None: it may be."""
        entry = engine.scheduler.names.get(command.namespace, command.name)
        if entry is None:
            return None
        spec = entry.spec
        sources = self._schemas.sources(spec.namespace, spec.pool, spec.handler)
        if not sources:
            return None
        backfill = isinstance(command, StartBackfill)
        wanted: Sequence[StartBackfill | Submission] = [command] if isinstance(command, StartBackfill) else command.runs
        fits: bytes | None = None
        checked_bytes = 0
        for index, one in enumerate(wanted):
            if one.parameters == fits or keyed_run_id(spec.uid, one.key) in engine.state.keys:
                continue
            path = "spec.parameters" if one.object_name else "parameters" if backfill else f"runs[{index}].parameters"
            parameters = merge(spec.parameters, one.parameters or b"{}")
            if refusal := self._checkers.refusal(spec.handler, sources, parameters, path):
                return CommandRefused(
                    request=command.request, reason=RefusalReason.INVALID_PARAMETERS, detail=str(refusal)
                )
            fits = one.parameters
            checked_bytes += len(parameters)
            if checked_bytes > _AT_ONCE_BYTES:
                checked_bytes = 0
                await asyncio.sleep(0)
        return None
