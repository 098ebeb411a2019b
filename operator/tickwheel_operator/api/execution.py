"""`spec.execution`: how a run is divided into dispatches. Invariant: at most one mode is set; none is `single`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tickwheel_operator.api.schema import Flag, JsonObject, Model, Whole, at_most_one
from tickwheel_operator.api.text import Percent, SuccessRule

__all__ = ["Broadcast", "Execution", "MapMode", "Sharded", "Single"]

MODES = ("single", "broadcast", "sharded", "map", "mapReduce")


class Single(Model):
    """One dispatch, on one worker."""


class Broadcast(Model):
    """One dispatch for each worker of the pool."""

    success: SuccessRule = SuccessRule("All")
    """How many must succeed: All, Any, Quorum (more than half), or a percentage such as `80%`."""
    join_late: Flag = False
    """Workers that appear while the run is open get a dispatch too."""


class Sharded(Model):
    """A fixed number of dispatches; each is told its index and their count."""

    shards: Annotated[Whole, Field(ge=1, le=10_000)]
    """How many dispatches, 1 to 10000."""
    parameters: JsonObject = Field(default_factory=dict, max_length=10_000)
    """A value for each shard, by its index: `{"0": Beijing, "1": Shanghai}`."""


class MapMode(Model):
    """The handler emits items while it runs; they are run in chunks, and may emit further items."""

    chunk_size: Annotated[Whole, Field(ge=1, le=100_000)] = 100
    """Items of one dispatch, 1 to 100000."""
    max_items: Annotated[Whole, Field(ge=1, le=100_000_000)] = 1_000_000
    """The most items of a run; one more fails it."""
    max_depth: Annotated[Whole, Field(ge=1, le=32)] = 2
    """How deep items may emit items, 1 to 32."""
    failure_threshold: Percent = Percent("0%")
    """The share of items that may fail while the run still succeeds."""
    speculative: Flag = False
    """Run the slowest chunks a second time elsewhere; the first result counts."""


class Execution(Model):
    """How a run is divided into dispatches. No mode is the schema's default, since a stored default could not be
    replaced by another mode with `kubectl apply`."""

    rules = (at_most_one(*MODES),)

    single: Single | None = None
    """One dispatch, on one worker. The default."""
    broadcast: Broadcast | None = None
    """One dispatch for each worker of the pool."""
    sharded: Sharded | None = None
    """A fixed number of dispatches; each is told its index and their count."""
    map: MapMode | None = None
    """The handler emits items while it runs; they are run in chunks on all workers."""
    map_reduce: MapMode | None = None
    """As `map`, and a last dispatch gets all results."""
