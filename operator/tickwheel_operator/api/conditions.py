"""Conditions, as kstatus reads them: GitOps tools and `kubectl wait` know from these whether an object is well.

`Ready` True: the object is armed and does what its spec says. `Reconciling` True: the operator is on its
way there. `Stalled` True: it cannot get there until somebody mends the spec; the message names the field.
Invariant: a condition carries the generation that it speaks of, so that a stale one is never mistaken.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tickwheel_operator.api.schema import ListOf, Model, Whole
from tickwheel_operator.api.text import Choice, Instant

__all__ = ["Condition", "ConditionStatus", "Conditions", "ObservedGeneration"]

ObservedGeneration = Annotated[Whole, Field(ge=0, le=2**62)]


class ConditionStatus(Choice):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of the object's state."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z0-9]*$")]
    """The aspect: Ready, Reconciling, Stalled; of a run: Running, Succeeded."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=256, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """One word for programs: why it does or does not."""
    message: Annotated[str, Field(max_length=16_384)] = ""
    """A sentence for people; of a fault it names the field and what is allowed."""
    last_transition_time: Instant
    """When the status last changed."""
    observed_generation: ObservedGeneration = 0
    """The `metadata.generation` that the condition speaks of."""


Conditions = Annotated[tuple[Condition, ...], ListOf(most=16, key="type")]
