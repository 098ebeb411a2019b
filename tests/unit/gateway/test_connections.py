"""How many connections there may be: by the pure bookkeeping, and over sockets from several addresses of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from tests.unit.gateway.scripted import PULL, TOKEN, ScriptedBackend, serving
from tests.unit.gateway.test_listener import authority, context, eventually, on_both_loops, trusting  # noqa: F401

from tickwheel_operator.engine.messages import Pulled
from tickwheel_operator.gateway.connections import Connection, ConnectionLimits, Connections

FLOOD, OTHER, GOOD = "127.0.0.66", "127.0.0.67", "127.0.0.7"


class Books:
    """The bookkeeping, with a clock, and what was cut off."""

    def __init__(self, **limits: float) -> None:
        self.now_s = 0.0
        self.connections = Connections(ConnectionLimits(**limits), lambda: self.now_s)  # type: ignore[arg-type]
        self.cut_off: list[Connection] = []

    def admit(self, source: str, *, proven: bool = False) -> Connection:
        admitted = self.connections.admit(source)
        assert isinstance(admitted, Connection), admitted

        def abort() -> None:
            self.cut_off.append(admitted)
            self.connections.ended(admitted)

        admitted.set_abort(abort)
        if proven:
            self.connections.prove(admitted)
        return admitted

    def refused(self, source: str) -> str:
        answer = self.connections.admit(source)
        assert isinstance(answer, str)
        return answer


def test_one_address_has_few_that_are_not_proven_and_any_number_that_are() -> None:
    books = Books(unproven_of_one=3)
    first = [books.admit(FLOOD) for _ in range(3)]
    assert "3 connections of this address" in books.refused(FLOOD)
    books.connections.prove(first[0])
    books.admit(FLOOD)
    for _ in range(50):
        books.admit(GOOD, proven=True)
    assert (len(books.connections), books.connections.unproven, books.cut_off) == (54, 3, [])


def test_when_the_unproven_are_too_many_the_address_with_the_most_loses_its_latest_to_a_newcomer() -> None:
    books = Books(unproven=10, unproven_of_one=8)
    flood = [books.admit(FLOOD) for _ in range(8)]
    two = [books.admit(OTHER) for _ in range(2)]
    newcomer = books.admit(GOOD)
    assert books.cut_off == [flood[-1]] and books.connections.unproven == 10
    assert "10 connections" in books.refused(FLOOD)
    for connection in (*two, newcomer):
        assert connection not in books.cut_off


def test_when_there_are_too_many_in_all_the_largest_address_gives_way_and_the_proven_of_others_stay() -> None:
    books = Books(most=20)
    workers = [books.admit(GOOD, proven=True) for _ in range(5)]
    for _ in range(15):
        books.admit(FLOOD, proven=True)
    assert "there are 20 connections" in books.refused(FLOOD)
    more = books.admit(OTHER)
    assert len(books.cut_off) == 1 and books.cut_off[0].source == FLOOD
    assert len(books.connections) == 20
    assert not {more, *workers} & set(books.cut_off)


def test_one_that_sends_no_request_is_cut_off_and_one_that_is_never_authorized_later() -> None:
    books = Books(headers_s=10, unproven_s=60)
    silent, stranger, worker = books.admit(FLOOD), books.admit(FLOOD), books.admit(GOOD, proven=True)
    stranger.heard = True
    books.now_s = 5.0
    books.connections.begun(silent)  # its handshake took so long
    books.now_s = 14.9
    assert books.connections.cut_off_late() == []
    books.now_s = 15.0
    assert books.connections.cut_off_late() == [silent]
    books.now_s = 60.0
    assert books.connections.cut_off_late() == [stranger]
    books.now_s = 1e6
    assert books.connections.cut_off_late() == [] and worker not in books.cut_off


def test_an_address_whose_connections_end_unproven_again_and_again_waits() -> None:
    books = Books(failures_per_s=10, failures_burst=5)
    for _ in range(5):
        books.connections.ended(books.admit(FLOOD))
    assert "10 a second" in books.refused(FLOOD)
    books.admit(GOOD)
    books.now_s = 0.1
    books.admit(FLOOD)
    for _ in range(20):
        books.connections.ended(books.admit(GOOD, proven=True))
    books.admit(GOOD)


def test_what_has_ended_is_forgotten_and_may_be_told_twice() -> None:
    books = Books()
    made = [books.admit(f"10.0.0.{n}", proven=bool(n % 2)) for n in range(20)]
    for connection in [*made, *made]:
        books.connections.ended(connection)
    assert (len(books.connections), books.connections.unproven) == (0, 0)
    assert not books.connections._all._of and not books.connections._unproven._of


# --- over sockets ----------------------------------------------------------------------------------------------------


Open = Callable[[str], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]


@asynccontextmanager
async def strangers(port: int) -> AsyncIterator[Open]:
    """Opens connections from addresses of its own; all are closed at the end."""
    writers = []

    async def open_one(source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writers.append(writer)
        return reader, writer

    try:
        yield open_one  # type: ignore[misc]
    finally:
        for writer in writers:
            writer.transport.abort()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(30):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


HALF = b"POST /v1/pull HTTP/1.1\r\nHost: gateway\r\nX-Slow: "


@pytest.mark.parametrize("sent", [b"", HALF], ids=["nothing", "half of its headers"])
@on_both_loops
async def test_one_that_never_finishes_its_headers_is_cut_off_in_plain_http(sent: bytes) -> None:
    async with serving(ScriptedBackend(), connections=ConnectionLimits(headers_s=0.1)) as (caller, gateway):
        async with strangers(gateway.port) as open_one:
            reader, writer = await open_one(FLOOD)
            writer.write(sent)
            assert await is_closed(reader)
        await eventually(lambda: gateway.refusals.counts["TooSlow"] == 1)
        assert (await caller.post("/v1/pull", PULL))[0] == 200


@on_both_loops
async def test_one_that_never_finishes_its_headers_is_cut_off_in_tls(context, trusting) -> None:  # noqa: F811
    limits = ConnectionLimits(headers_s=0.1)
    async with serving(ScriptedBackend(), tls=context, connections=limits) as (caller, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=trusting)
        writer.write(HALF)
        assert await is_closed(reader)
        writer.close()
        assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200


@on_both_loops
async def test_a_later_request_that_never_finishes_its_headers_is_cut_off_too() -> None:
    async with serving(ScriptedBackend(), keepalive_s=0.2) as (_, gateway), strangers(gateway.port) as open_one:
        reader, writer = await open_one(GOOD)
        body = msgspec.json.encode(PULL)
        writer.write(
            b"POST /v1/pull HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s%s"
            % (TOKEN.encode(), len(body), body, HALF)
        )
        async with asyncio.timeout(30):
            assert b" 200 " in await reader.readline()
            assert (await reader.read()).endswith(b"}"), "and then it is closed"


@on_both_loops
async def test_a_flood_of_connections_that_say_nothing_keeps_no_worker_out_and_breaks_no_pull() -> None:
    release = asyncio.Event()

    async def wait(command):
        await release.wait()
        return Pulled(request=command.request, deliveries=[])

    backend = ScriptedBackend(wait)
    limits = ConnectionLimits(most=200, unproven=100, unproven_of_one=60, failures_burst=100_000)
    async with serving(backend, connections=limits) as (caller, gateway), strangers(gateway.port) as open_one:
        pulling = asyncio.create_task(caller.post("/v1/pull", PULL))
        await backend.called.wait()
        for source in (FLOOD, OTHER):
            await asyncio.gather(*(open_one(source) for _ in range(300)))
        await eventually(lambda: gateway.refusals.counts["TooManyConnections"] >= 400)
        release.set()
        connector = aiohttp.TCPConnector(local_addr=(GOOD, 0))
        async with aiohttp.ClientSession(connector=connector) as newcomer:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            for _ in range(5):
                async with newcomer.post(f"{caller.base}/v1/pull", json=PULL, headers=headers) as answer:
                    assert answer.status == 200
        assert (await pulling)[0] == 200
        assert len(gateway._listener._connections) <= 200


@on_both_loops
async def test_all_connections_of_a_gateway_are_forgotten_when_they_end(context, trusting) -> None:  # noqa: F811
    async with serving(ScriptedBackend(), tls=context) as (caller, gateway):
        await asyncio.gather(*(caller.post("/v1/pull", PULL, ssl=trusting) for _ in range(20)))
        async with strangers(gateway.port) as open_one:
            await asyncio.gather(*(open_one(FLOOD) for _ in range(20)))
            listener = gateway._listener
            await eventually(lambda: listener._connections.unproven == 20)
        await caller.session.close()
        await eventually(lambda: len(listener._connections) == 0)
        assert not listener._of
