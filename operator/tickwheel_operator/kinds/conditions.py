"""Conditions as kstatus wants them: Ready, Reconciling and Stalled of what stays; Running and Succeeded of runs."""

from __future__ import annotations

from typing import Any, TypeAlias

from tickwheel_operator import reasons
from tickwheel_operator.kinds.seen import Fault

__all__ = ["SETTLED", "Status", "Words", "condition", "conditions", "faulty"]

Status: TypeAlias = dict[str, Any]
"""The fields of a status; None: the field is to be absent."""
Words: TypeAlias = tuple[str, str, str]
"""A condition's status, reason and message."""

SETTLED: Words = ("False", reasons.SETTLED, "")
_MESSAGE_CHARS = 16_384


def condition(kind: str, words: Words, generation: int) -> dict[str, Any]:
    """One condition; its lastTransitionTime is added when it is written."""
    status, reason, message = words
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_CHARS],
        "observedGeneration": generation,
    }


def conditions(generation: int, **words: Words) -> list[dict[str, Any]]:
    """Several, in this order."""
    return [condition(kind, of_kind, generation) for kind, of_kind in words.items()]


def faulty(fault: Fault) -> tuple[Words, Words]:
    """Ready and Stalled of an object with a fault."""
    return ("False", fault.reason, fault.message), ("True", fault.reason, fault.message)
