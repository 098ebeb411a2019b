"""The simulated stores, held to the contracts of the real ones; and what the simulation found, told slowly."""

from __future__ import annotations

import asyncio

import pytest
from tests.contract.lease_store import LeaseStoreContract
from tests.contract.ledger import LedgerContract, a_ledger, everything, facts
from tests.contract.segment_store import SegmentStoreContract
from tests.simulation.record import Record
from tests.simulation.stores import Leases, NodeLeases, NodeSegments, Segments
from tests.simulation.world import World


class _Unaware(Record):
    """The contracts write what is no log."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.closed = True


@pytest.fixture
async def world() -> World:
    """Without faults, and in real time: messages take three milliseconds at most."""
    world = World(0)
    world.heal()
    world.loop = asyncio.get_running_loop()
    return world


class _SegmentStores:
    @pytest.fixture
    def stores(self, world):
        segments = Segments(_Unaware())
        return lambda: NodeSegments(world, segments)


class TestSegments(_SegmentStores, SegmentStoreContract):
    pass


class TestLedger(_SegmentStores, LedgerContract):
    pass


class TestLeases(LeaseStoreContract):
    @pytest.fixture
    def stores(self, world):
        leases = Leases(world)
        return lambda: NodeLeases(world, leases)


class TestFound(_SegmentStores):
    async def test_a_takeover_whose_name_was_written_and_compacted_meanwhile_takes_the_next_one(self, stores):
        """Seed 11435: the fence landed below the rival's checkpoint, and its segments were called missing."""

        class Slow(NodeSegments):
            async def create(self, segment):
                arrives.set()
                await written.wait()
                await super().create(segment)

        arrives, written = asyncio.Event(), asyncio.Event()
        rival, slow = a_ledger(stores(), "rival"), stores()
        slow.__class__ = Slow
        await rival.open(0)
        await rival.append(facts(1))

        opening = asyncio.create_task(a_ledger(slow, "late").open(0))
        await arrives.wait()
        await rival.append(facts(2))  # under the name that the late one has on its way
        await rival.checkpoint([b"state"], stands_for=rival.last_sequence)
        await rival.swept()
        written.set()
        opened = await opening

        assert opened.checkpoint == [b"state"]
        assert await everything(opened) == []
        headers = await stores().list(0)
        assert headers[-1].epoch == opened.epoch > rival.epoch
