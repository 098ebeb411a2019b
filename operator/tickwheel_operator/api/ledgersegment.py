"""LedgerSegment: one append to a partition's log. Internal: the operator alone writes it.

This is the hot path (tens of creates a second of up to 512 KiB), so the schema is as cheap as a schema can
be: no pattern and no CEL over the data, no status, no columns that read it. That a segment never changes
is the affair of RBAC: nobody, the operator included, is granted update or patch; that it is sound is the
affair of the checksum inside.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.resource import AGE, Column, Presentation, Resource
from tickwheel_operator.api.schema import Model, Whole
from tickwheel_operator.api.text import Choice

__all__ = ["LedgerSegment", "LedgerSegmentSpec", "SegmentKind"]

Ordinal = Annotated[Whole, Field(ge=0, le=2**62)]


class SegmentKind(Choice):
    """What a segment holds."""

    FACTS = "Facts"
    EPOCH = "Epoch"
    CHECKPOINT = "Checkpoint"


class LedgerSegmentSpec(Model):
    """One append: what happened, in the order in which it happened."""

    partition: Annotated[str, Field(min_length=1, max_length=63)]
    """The partition whose log this is."""
    sequence: Ordinal
    """Position in the partition's log."""
    kind: SegmentKind
    """Facts: an append. Epoch: a new leader took over. Checkpoint: the state after all segments below it."""
    generation: Ordinal = 0
    """The checkpoint generation that the segment belongs to; a generation is deleted as a whole."""
    epoch: Ordinal
    """The leader's epoch. A leader that finds a higher one stops."""
    nonce: Annotated[str, Field(min_length=1, max_length=64)]
    """Drawn for each append, so that a leader whose answer was lost knows its own segment again."""
    version: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 1
    """The format of `data`."""
    chunk: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    """Checkpoint only: this chunk, from 0."""
    chunks: Annotated[Whole, Field(ge=1, le=2**31 - 1)] = 1
    """Checkpoint only: how many chunks there are."""
    data: Annotated[str, Field(max_length=1_000_000)] = ""
    """The facts: encoded, compressed, with a checksum, base64."""


class LedgerSegment(Resource):
    """One append to the durable log of a partition. Written by the operator only; never edit or delete one."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="ledgersegments",
        short=None,
        columns=(
            Column(name="Partition", path=".spec.partition", description="The partition whose log this is"),
            Column(name="Sequence", path=".spec.sequence", type="integer", description="Position in the log"),
            Column(name="Kind", path=".spec.kind", description="Facts, Epoch or Checkpoint"),
            Column(name="Epoch", path=".spec.epoch", type="integer", description="The leader's epoch"),
            AGE,
        ),
        # Not in the category: `kubectl get tickwheel` is for what users write, and would read the whole log.
        categories=(),
    )

    kind: Literal["LedgerSegment"] = "LedgerSegment"
    spec: LedgerSegmentSpec
