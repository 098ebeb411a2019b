"""What some stories have that most do not, each by its own chance: what is rare, or takes time.

Drawn beside the story's own chance, so that what a story is like does not change with what others get.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import msgspec

from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule import deleted
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger import log, splitting

__all__ = ["Kind", "draw_kind", "patched"]

_DELETED_KEPT_MS = 4_000
"""No watch of a story is so late."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Of one story."""

    restless: bool = False
    """Leaders follow each other fast, so that more epochs begin than are kept."""
    crowd: int = 0
    """How many workers there are beyond the usual three; checkpoints then remember one that holds nothing."""
    divided: bool = False
    """A fact about many runs is divided, as one is that does not fit a segment."""
    clumsy: bool = False
    """Workers name a token twice in one report."""
    cut_off: float = 0.0
    """At which part of its storm the story ends, with what is open then; 0: it goes on until nothing is open."""


def draw_kind(seed: int) -> Kind:
    chance = random.Random(f"kind of {seed}")
    return Kind(
        restless=chance.random() < 0.03,
        crowd=chance.randint(4, 9) if chance.random() < 0.06 else 0,
        divided=chance.random() < 0.08,
        clumsy=chance.random() < 0.2,
        cut_off=chance.uniform(0.1, 1.0) if chance.random() < 0.08 else 0.0,
    )


@contextmanager
def patched(kind: Kind, say: Callable[[str], None]) -> Iterator[None]:
    """The operator's own bounds are as this kind of story needs them."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(deleted, "_KEPT_MS", _DELETED_KEPT_MS))
        if kind.crowd:
            forget = State.forget_worker

            def forget_worker(state: State, number: int) -> None:
                say(f"lets go of worker {number}")
                forget(state, number)

            stack.enter_context(mock.patch.object(snapshot, "_WORKER_MEMORY", 1))
            stack.enter_context(mock.patch.object(State, "forget_worker", forget_worker))
        if kind.divided:
            whole = splitting.encoded

            def encoded(facts: Sequence[f.Fact], *, max_bytes: int) -> Iterator[bytes]:
                for part in _divided(facts, say):
                    yield from whole(part, max_bytes=max_bytes)

            stack.enter_context(mock.patch.object(log, "encoded", encoded))
        yield


def _divided(facts: Sequence[f.Fact], say: Callable[[str], None]) -> Iterator[Sequence[f.Fact]]:
    """As `splitting.encoded` divides them, down to facts about one run each."""
    if not any(splitting._halves(fact) for fact in facts):
        yield facts
        return
    middle = splitting._boundary(facts)
    parts = (facts[:middle], facts[middle:]) if middle else splitting._halves(facts[0])
    if not middle:
        say(f"divides a {type(facts[0]).__name__}")
    for part in parts or ():
        yield from _divided(part, say)
