"""The TLS port: who speaks TLS gets through, who does not is told why, and the log names both."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from tests.unit.gateway.scripted import PULL, ScriptedBackend, serving

from tickwheel_operator.gateway.connections import ConnectionLimits, Connections
from tickwheel_operator.gateway.listener import Listener
from tickwheel_operator.gateway.refusals import Refusals
from tickwheel_operator.tls.authority import issue, make_authority, pem
from tickwheel_operator.tls.serving import load, server_context


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Each loop has TLS of its own, and production runs on uvloop."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    given = inspect.signature(test)
    loop = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = given.replace(parameters=[loop, *given.parameters.values()])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    both = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", both, ids=["asyncio", "uvloop"])(run)


@pytest.fixture(scope="module")
def authority():
    return make_authority(time.time_ns() // 1_000_000, 3_600_000)


@pytest.fixture
def context(authority) -> ssl.SSLContext:
    leaf = issue(authority, names=["127.0.0.1"], now_ms=time.time_ns() // 1_000_000, lifetime_ms=3_600_000)
    context = server_context()
    load(context, leaf.certificate_pem, leaf.key_pem)
    return context


@pytest.fixture
def trusting(authority, tmp_path) -> ssl.SSLContext:
    (tmp_path / "ca.crt").write_bytes(pem([authority.certificate]))
    return ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def eventually(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@on_both_loops
async def test_a_caller_that_trusts_the_authority_gets_through_again_and_again(context, trusting, caplog):
    backend = ScriptedBackend()
    async with serving(backend, tls=context) as (caller, _):
        for _ in range(3):
            assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200
        many = await asyncio.gather(*(caller.post("/v1/pull", PULL, ssl=trusting) for _ in range(50)))
        assert {status for status, _, _ in many} == {200}
    assert len(backend.commands) == 53 and lines(caplog) == []


@pytest.mark.parametrize("body", [None, b"x" * 300_000], ids=["small", "more than the socket holds"])
@on_both_loops
async def test_plain_http_is_answered_with_what_to_mend(context, caplog, body):
    async with serving(ScriptedBackend(), tls=context) as (caller, gateway):
        caller.base = caller.base.replace("https:", "http:")
        status, problem, _ = await caller.post("/v1/pull", PULL if body is None else body)
        assert status == 400 and problem["type"] == "urn:tickwheel:problem:bad-request"
        assert "TICKWHEEL_ENDPOINT" in problem["detail"] and "https://" in problem["detail"]
        assert gateway.refusals.counts["PlainHTTP"] == 1
    assert len(lines(caplog)) == 1 and "PlainHTTP" in lines(caplog)[0] and "127.0.0.1" in lines(caplog)[0]


@on_both_loops
async def test_a_caller_that_does_not_trust_the_authority_is_named(context, caplog):
    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", gateway.port, ssl=ssl.create_default_context())
        await eventually(lambda: lines(caplog))
    assert "HandshakeFailed: the caller does not trust" in lines(caplog)[0] and "127.0.0.1" in lines(caplog)[0]


@on_both_loops
async def test_a_caller_that_says_why_is_quoted(context, caplog):
    """Blocking sockets of Python, OpenSSL's and Go's clients send an alert before they go."""

    def refuse(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")

    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        await asyncio.to_thread(refuse, gateway.port)
        await eventually(lambda: lines(caplog))
    assert "unknown authority" in lines(caplog)[0]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03"], ids=["nothing", "half a greeting"])
@on_both_loops
async def test_one_that_connects_and_leaves_or_stays_silent_harms_nobody(context, trusting, caplog, sent):
    refusals, accepted = Refusals(), []

    def factory() -> asyncio.Protocol:
        accepted.append(asyncio.Protocol())
        return accepted[-1]

    listener = Listener(factory, context, refusals, Connections(ConnectionLimits()), timeout_s=0.2)
    port = listener.start("127.0.0.1", 0)
    try:
        _, leaves = await asyncio.open_connection("127.0.0.1", port)
        leaves.close()
        reader, stays = await asyncio.open_connection("127.0.0.1", port)
        stays.write(sent)
        async with asyncio.timeout(30):
            assert await reader.read() == b"", "it is hung up on"
        listener._timeout_s = 30.0
        _, good = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        good.close()
        stays.close()
        await eventually(lambda: not listener._beginning)
    finally:
        await listener.stop()
    assert refusals.counts["HandshakeFailed"] == (1 if sent else 0)
    assert len(lines(caplog)) == (1 if sent else 0)


@on_both_loops
async def test_nobody_is_taken_after_the_stop_and_one_that_begins_is_let_go(context):
    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        await asyncio.sleep(0.05)
        await gateway.stop()
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", gateway.port)


@on_both_loops
async def test_a_port_that_is_taken_is_an_error_at_the_start(context):
    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        with pytest.raises(OSError):
            Listener(asyncio.Protocol, context, Refusals(), Connections(ConnectionLimits())).start(
                "127.0.0.1", gateway.port
            )
