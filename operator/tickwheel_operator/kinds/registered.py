"""The handlers of a pool's workers in its status: names, and JSON Schemas within a bounded size.

The object is stored again with each change of its status, so what is shown of the schemas is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tickwheel_operator.api.nesting import MOST_LEVELS, is_nested_within
from tickwheel_operator.handlers.known import HandlerSchema

__all__ = ["MOST_HANDLERS", "MOST_SHOWN_BYTES", "Schemas", "registered_handlers"]

Schemas = Mapping[str, Sequence[HandlerSchema]]
"""By handler, the different schemas that live workers have, those that came last first."""

MOST_HANDLERS = 1_000
"""The most that a status names."""
MOST_SHOWN_BYTES = 32 * 1024
"""The most that the schemas in one status have, as JSON; of handlers beyond it there is only the name."""
_LEVELS = MOST_LEVELS - 5
"""Of a schema, so that the whole object has no more than it may."""


def registered_handlers(names: Sequence[str], schemas: Schemas) -> list[dict[str, Any]]:
    """`status.handlers` of a pool."""
    room_bytes = MOST_SHOWN_BYTES
    shown = []
    for name in sorted(names)[:MOST_HANDLERS]:
        known = schemas.get(name, ())
        entry: dict[str, Any] = {"name": name}
        if known:
            size_bytes = len(known[0].parameters) + len(known[0].result)
            if size_bytes <= room_bytes:
                room_bytes -= size_bytes
                entry |= {"parameters": _shown(known[0].parameters), "result": _shown(known[0].result)}
        if len(known) > 1:
            entry["differ"] = True
        shown.append({key: value for key, value in entry.items() if value})
    return shown


def _shown(schema: bytes) -> dict[str, Any] | None:
    """None: there is nothing to show."""
    value = msgspec.json.decode(schema)
    return value if isinstance(value, dict) and is_nested_within(value, _LEVELS) else None
