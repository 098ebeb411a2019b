"""`spec.routing`: which worker of the pool gets a dispatch. Invariant: a pinned task never falls back in silence."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tickwheel_operator.api.schema import Flag, ListOf, Model, Rule, exactly_one
from tickwheel_operator.api.text import Choice, JsonPointer, ObjectName, Quantity

__all__ = ["BusyRule", "LabelSelector", "Pinned", "Requirements", "Routing", "Strategy"]

LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class Strategy(Choice):
    """How the candidates are ordered."""

    ROUND_ROBIN = "RoundRobin"
    WEIGHTED_ROUND_ROBIN = "WeightedRoundRobin"
    RANDOM = "Random"
    CONSISTENT_HASH = "ConsistentHash"
    LEAST_FREQUENTLY_USED = "LeastFrequentlyUsed"
    LEAST_RECENTLY_USED = "LeastRecentlyUsed"
    LEAST_LOADED = "LeastLoaded"
    FIRST = "First"
    LAST = "Last"
    PINNED = "Pinned"


class BusyRule(Choice):
    """What happens when the chosen worker is busy."""

    TRANSFER = "Transfer"
    WAIT = "Wait"
    FAIL = "Fail"


class SelectorOperator(Choice):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(Model):
    """One condition on a label."""

    key: LabelKey
    """The label."""
    operator: SelectorOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[LabelValue, ...], ListOf(most=64)] = ()
    """For In and NotIn: the values."""


class LabelSelector(Model):
    """Pods by their labels, as everywhere in Kubernetes."""

    match_labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=64)
    """Labels that must have these values."""
    match_expressions: Annotated[tuple[SelectorRequirement, ...], ListOf(most=32)] = ()
    """Conditions that must all hold."""


class Pinned(Model):
    """The only workers that may take the task."""

    rules = (exactly_one("worker", "node", "selector"),)

    worker: ObjectName | None = None
    """A worker, by the name of its pod: `shops-0`."""
    node: ObjectName | None = None
    """The workers on this node."""
    selector: LabelSelector | None = None
    """The workers whose pods have these labels."""


class Requirements(Model):
    """What a worker must have free, and be."""

    cpu: Quantity | None = None
    """CPU that an attempt takes: `500m`."""
    memory: Quantity | None = None
    """Memory that an attempt takes: `256Mi`."""
    disk: Quantity | None = None
    """Ephemeral storage that an attempt takes: `1Gi`."""
    selector: LabelSelector | None = None
    """Labels of the worker's pod."""


class Routing(Model):
    """Which worker of the pool gets a dispatch."""

    rules = (
        Rule(
            "!has(self.hashKey) || self.strategy == 'ConsistentHash'",
            "hashKey belongs to the strategy ConsistentHash",
            lambda routing: routing.hash_key is None or routing.strategy is Strategy.CONSISTENT_HASH,
        ),
        Rule(
            # has(strategy): the API server tries rules on the default `{}` before it fills in what is inside.
            "has(self.pinned) == (has(self.strategy) && self.strategy == 'Pinned')",
            "pinned and the strategy Pinned belong together; set both or none",
            lambda routing: (routing.pinned is not None) == (routing.strategy is Strategy.PINNED),
        ),
    )

    strategy: Strategy = Strategy.ROUND_ROBIN
    """How the pool's workers are ordered; the first that is not busy gets the dispatch."""
    hash_key: JsonPointer | None = None
    """ConsistentHash only: a JSON pointer into the parameters, `/shop`. Default: the task's uid."""
    pinned: Pinned | None = None
    """Pinned only: the workers that may take the task. Never falls back to others."""
    requirements: Requirements | None = None
    """What a worker must have free, and which labels its pod must have. Default: nothing."""
    busy: BusyRule = BusyRule.TRANSFER
    """The chosen worker is busy. Transfer: the next one gets it. Wait: it waits for this one. Fail: a failed
    delivery."""
    zone_preference: Flag = False
    """Prefer workers of the operator's own topology zone."""
