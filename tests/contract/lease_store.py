"""The contract of `election.lease.LeaseStore`: the test module of a store subclasses it and gives it `stores`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseStore

__all__ = ["LeaseStoreContract", "a_lease"]


def a_lease(holder: str = "a", **values: object) -> Lease:
    defaults = {
        "holder": holder, "duration_ms": 15_000, "acquired_ms": 1_770_000_000_000, "renewed_ms": 1_770_000_002_345,
        "transitions": 3, "endpoint": "https://10.0.0.7:8443",
    }  # fmt: skip
    return Lease(**{**defaults, **values})


def without_version(lease: Lease) -> Lease:
    return msgspec.structs.replace(lease, version="")


class LeaseStoreContract:
    @pytest.fixture
    def store(self, stores: Callable[[], LeaseStore]) -> LeaseStore:
        return stores()

    async def test_a_lease_that_is_not_there_is_none(self, store):
        assert await store.get("p0") is None

    async def test_what_is_created_is_read_as_it_was(self, stores):
        created = await stores().create("p0", a_lease())
        assert created.version
        assert without_version(created) == a_lease()
        assert await stores().get("p0") == created

    async def test_full_seconds_and_an_empty_holder_are_kept(self, store):
        lease = a_lease("", renewed_ms=1_770_000_000_000, duration_ms=1_000, endpoint="")
        await store.create("p0", lease)
        assert without_version(await store.get("p0")) == lease

    async def test_a_name_is_created_once(self, stores):
        await stores().create("p0", a_lease("a"))
        with pytest.raises(LeaseConflict):
            await stores().create("p0", a_lease("b"))
        assert (await stores().get("p0")).holder == "a"

    async def test_an_update_replaces_the_version_that_it_names(self, store):
        created = await store.create("p0", a_lease())
        updated = await store.update("p0", msgspec.structs.replace(created, holder="b", transitions=4))
        assert updated.version != created.version
        assert await store.get("p0") == updated
        assert (updated.holder, updated.transitions) == ("b", 4)

    async def test_an_update_of_an_older_version_conflicts(self, stores):
        created = await stores().create("p0", a_lease())
        await stores().update("p0", msgspec.structs.replace(created, holder="b"))
        with pytest.raises(LeaseConflict):
            await stores().update("p0", msgspec.structs.replace(created, holder="c"))
        assert (await stores().get("p0")).holder == "b"

    async def test_an_update_of_what_is_not_there_conflicts(self, store):
        elsewhere = await store.create("p1", a_lease())
        with pytest.raises(LeaseConflict):
            await store.update("p0", elsewhere)
        assert await store.get("p0") is None

    async def test_of_many_that_update_one_version_exactly_one_succeeds(self, stores):
        created = await stores().create("p0", a_lease())

        async def try_to(number: int) -> bool:
            try:
                await stores().update("p0", msgspec.structs.replace(created, holder=f"h{number}"))
            except LeaseConflict:
                return False
            return True

        assert sum(await asyncio.gather(*map(try_to, range(8)))) == 1

    async def test_a_watch_shows_a_change(self, stores):
        created = await stores().create("p0", a_lease())
        seen = asyncio.Event()

        async def watch() -> None:
            async for lease in stores().watch("p0"):
                if lease is not None and lease.holder == "":
                    seen.set()

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.3)
        await stores().update("p0", msgspec.structs.replace(created, holder=""))
        async with asyncio.timeout(30):
            await seen.wait()
        watching.cancel()
        await asyncio.wait([watching])
