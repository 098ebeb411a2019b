"""What is no request of the protocol is refused with a document that helps, and the gateway lives on."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging

import pytest
from aiohttp.compression_utils import ZLibDecompressor
from tests.unit.gateway.scripted import PULL, TOKEN, WORKER, ScriptedBackend, serving

MALFORMED = [
    (b"", "the body is not valid JSON: Input data was truncated"),
    (b"{", "the body is not valid JSON: Input data was truncated"),
    (b"nonsense", "the body is not valid JSON: invalid character (byte 4)"),
    (b"[]", "the body: must be an object, not an array"),
    (b"null", "the body: must be an object, not null"),
    (b"{} {}", None),
    (b"\xef\xbb\xbf{}", "the body is not valid JSON: invalid character (byte 0)"),
    (b"\x00" * 100, None),
    (b"{}", "worker: is required, and missing"),
    (b'{"worker":{}}', "worker.namespace: is required, and missing"),
    (b'{"worker":{"namespace":""}}', "worker.namespace: must be a string of at least 1 in length"),
    (b'{"worker":{"namespace":7}}', "worker.namespace: must be a string, not an integer"),
    (b'{"worker":{"namespace":"' + b"n" * 64 + b'"}}', "worker.namespace: must be a string of at most 63 in length"),
    (b'{"handlers":[1]}', "handlers[0]: must be a string, not an integer"),
    (b'{"handlers":["a","\xff"]}', "the body is not UTF-8: invalid byte at offset 0 of a string"),
    (b'{"handlers":null}', "handlers: must be an array, not null"),
    (b'{"free":-1}', "free: must be an integer of at least 0"),
    (b'{"free":1.5}', "free: must be an integer, not a number"),
    (b'{"free":"4"}', "free: must be an integer, not a string"),
    (b'{"received":' + b"9" * 30 + b"}", "received: must be an integer of at most 9,223,372,036,854,775,807"),
    (b'{"load":[]}', "load: must be an object or null, not an array"),
    (b'{"load":{"cpu":1e999}}', "load.cpu: Number out of range"),
    (b'{"labels":{"a":1}}', "labels[...]: must be a string, not an integer"),
    (b'{"labels":{"":"b"}}', "a key of labels: must be a string of at least 1 in length"),
    (b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "the body is not usable: its JSON is nested too deeply"),
]


@pytest.mark.parametrize(("body", "detail"), MALFORMED)
async def test_a_malformed_pull_is_refused_with_the_path_of_the_fault(body, detail):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        status, problem, headers = await caller.post("/v1/pull", body)
        alive, _, _ = await caller.post("/v1/pull", PULL)
    assert (status, alive, len(backend.commands)) == (400, 200, 1)
    assert headers["Content-Type"] == "application/problem+json"
    assert (problem["type"], problem["status"]) == ("urn:tickwheel:problem:bad-request", 400)
    if detail is not None:
        assert problem["detail"] == detail


@pytest.mark.parametrize("body", [body for body, _ in MALFORMED if body])
async def test_a_malformed_body_fails_no_other_path_worse(body):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        report, _, _ = await caller.post("/v1/report", body)
        submit, _, _ = await caller.post("/v1/tasks/a/b/runs", body)
    # Unknown fields are ignored, so some of these are good submissions; the script does not answer those.
    assert report == 400
    assert submit in (400, 500)


async def test_too_many_handlers_or_labels_are_refused():
    async with serving(ScriptedBackend()) as (caller, _):
        handlers, problem, _ = await caller.post("/v1/pull", {**PULL, "handlers": ["h"] * 257})
        labels, _, _ = await caller.post("/v1/pull", {**PULL, "labels": {f"l{n}": "" for n in range(65)}})
    assert (handlers, labels) == (400, 400)
    assert problem["detail"] == "handlers: must be an array of at most 256 in length"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u202eb", "a\u0000"])
async def test_names_that_cannot_be_printed_are_refused(name):
    async with serving(ScriptedBackend()) as (caller, _):
        status, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": {**WORKER, "name": name}})
    assert (status, problem["detail"].split(":")[0]) == (400, "worker")


@pytest.mark.parametrize(
    ("path", "setting"),
    [("/v1/pull", "max_pull_bytes"), ("/v1/report", "max_report_bytes"), ("/v1/tasks/a/b/runs", "max_submit_bytes")],
)
async def test_a_body_above_its_limit_is_refused_however_it_is_sent(path, setting):
    async def chunks():
        for _ in range(11):
            yield b" " * 100
            await asyncio.sleep(0)

    backend = ScriptedBackend()
    async with serving(backend, **{setting: 1_000}) as (caller, _):
        whole, problem, _ = await caller.post(path, b" " * 1_001)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with caller.session.post(caller.base + path, data=chunks(), headers=bearer) as response:
            chunked = response.status
        async with caller.session.post(
            caller.base + path, data=b" " * 1_001, headers=bearer, expect100=True
        ) as response:
            expecting = response.status
    assert (whole, chunked, expecting) == (413, 413, 413)
    assert problem["type"] == "urn:tickwheel:problem:too-large"
    assert problem["detail"] == "the body has 1,001 bytes; up to 1,000 bytes are allowed"
    assert backend.commands == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZip"])
async def test_a_compressed_body_is_refused_by_name(coding):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": coding}
        body = gzip.compress(json.dumps(PULL).encode())
        async with caller.session.post(caller.base + "/v1/pull", data=body, headers=headers) as response:
            status, problem = response.status, await response.json(content_type=None)
        plain, _, _ = await caller.post("/v1/pull", PULL)
    assert (status, plain, len(backend.commands)) == (400, 200, 1)
    assert problem["detail"] == f"Content-Encoding: '{coding.lower()}' is not read here; send the JSON as it is"


@pytest.mark.parametrize("token", [TOKEN, "a wrong one"])
async def test_nobody_has_the_gateway_inflate_what_is_packed_into_little(monkeypatch, token):
    inflated = []
    unpack = ZLibDecompressor.decompress_sync
    monkeypatch.setattr(
        ZLibDecompressor, "decompress_sync", lambda *given, **more: inflated.append(1) or unpack(*given, **more)
    )
    body = gzip.compress(b" " * 20_000_000)
    async with serving(ScriptedBackend()) as (_, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = f"POST /v1/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Encoding: gzip\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        async with asyncio.timeout(30):
            assert (await reader.read(12)).startswith(b"HTTP/1.1 40")
        writer.write(body[-1:] + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            assert b"\r\n\r\nok\n" in await reader.read(), "all of the body was read over"
        writer.close()
    assert inflated == []


async def test_a_client_that_expects_100_continue_is_told_to_go_on():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        status, _, _ = await caller.post("/v1/pull", PULL, expect100=True)
    assert (status, len(backend.commands)) == (200, 1)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"1" + b"0" * 308, ""),
        (b'["' + b"7" * 400 + b'",0.' + b"0" * 400 + b"1]", ""),
        (b"1" + b"0" * 309, ": has an integer beyond 1.8e308, the largest number that is kept"),
        (b'{"a":[-9' + b"9" * 400 + b"]}", ": has an integer beyond 1.8e308, the largest number that is kept"),
        (b"1" + b"0" * 5_000, ": Integer value out of range"),
        (b"1e999", ": Number out of range"),
        (b"[0,[1e999]]", "[1][0]: Number out of range"),
    ],
)
async def test_a_number_is_refused_that_readers_of_the_status_could_not_hold(value, fault):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        worker = json.dumps(WORKER).encode()
        body = b'{"worker":' + worker + b',"results":[{"token":1,"value":' + value + b"}]}"
        status, problem, _ = await caller.post("/v1/report", body)
    assert (status, len(backend.commands)) == ((400, 0) if fault else (200, 1))
    assert problem.get("detail", "").removeprefix("results[0].value").replace("[...]", "[1]") == fault


@pytest.mark.parametrize(("levels", "status"), [(98, 200), (99, 400), (600, 400), (20_000, 400)])
async def test_a_result_that_the_status_could_not_be_read_with_is_refused(levels, status):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        value = b"[" * levels + b"]" * levels
        body = b'{"worker":' + json.dumps(WORKER).encode() + b',"results":[{"token":1,"value":' + value + b"}]}"
        answered, problem, _ = await caller.post("/v1/report", body)
    assert answered == status
    if levels == 99:
        assert problem["detail"] == "results[0].value: is nested more than 98 levels deep"


async def test_a_body_that_does_not_arrive_in_time_is_refused():
    async with serving(ScriptedBackend(), body_timeout_s=0.1) as (_, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            b"POST /v1/pull HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n{"
        )
        async with asyncio.timeout(30):
            answer = await reader.readuntil(b"}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ") and b"did not arrive within 0.1 s" in answer


async def test_a_path_or_method_that_is_not_there_is_named():
    async with serving(ScriptedBackend()) as (caller, _):
        path, problem, _ = await caller.post("/v2/pull", PULL)
        method, text, headers = await caller.get("/v1/pull")
    assert (path, problem["type"]) == (404, "urn:tickwheel:problem:not-found")
    assert (method, headers["Allow"]) == (405, "POST")
    assert "method-not-allowed" in text


async def test_what_is_no_http_at_all_neither_ends_the_gateway_nor_fills_its_log(caplog):
    async with serving(ScriptedBackend()) as (caller, gateway):
        for noise in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST /v1/pull HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(noise)
            writer.write_eof()
            async with asyncio.timeout(30):
                await reader.read()
            writer.close()
        status, _, _ = await caller.post("/v1/pull", PULL)
    assert status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
