"""The garbage collector, kept from stopping the engine: what it looks through, and how often."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Protocol

__all__ = ["collect_again", "collect_rarely", "leave_alone", "settle_memory", "uncollected"]


class _Catalog(Protocol):
    async def wait_synced(self) -> None: ...


async def settle_memory(catalog: _Catalog) -> None:
    """Keep the collector off what lives as long as the process: with 20,000 tasks each full collection stops the engine
    for up to 300 ms, with 100,000 for 900 (measured by benchmarks/catalog). Runs until cancelled."""
    collect_rarely()
    await catalog.wait_synced()
    leave_alone()
    await asyncio.Event().wait()


def collect_rarely() -> None:
    """Runs come and go by the ten thousand a second, and objects of a list by the thousand: with the defaults the
    collector looks through the long-lived ones for 40 ms at a time."""
    gc.set_threshold(20_000, 20, 200)


def leave_alone() -> None:
    """What there is now, stays."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector; what there is at the end it leaves alone, until `collect_again`. A million tasks that are
    armed are a million objects that live as long as the term: to look through them again and again is half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def collect_again() -> None:
    """Look through what was left alone, too: a term has ended, and its engine would stay for good."""
    gc.unfreeze()
