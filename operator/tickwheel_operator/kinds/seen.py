"""What the watch saw of one object: a small frozen value, without the raw object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from tickwheel_operator.kinds.stored import NOTHING, Stored

__all__ = ["Fault", "RawObject", "Seen"]

RawObject: TypeAlias = Mapping[str, Any]


class Fault(msgspec.Struct, frozen=True):
    """Why an object cannot be acted upon: the reason and message of its `Stalled` condition."""

    reason: str
    message: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What every kind has; each kind adds what it needs."""

    kind: str
    uid: str
    namespace: str
    name: str
    generation: int
    fault: Fault | None = None
    """What is wrong with its manifest; None: nothing."""
    stored: Stored = NOTHING
    """What its status says now."""
