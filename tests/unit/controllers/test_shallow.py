"""What is nested too deeply for Python to decode is cut off, and nothing else is changed."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from tickwheel_operator.api.nesting import MOST_LEVELS, cut
from tickwheel_operator.controllers.shallow import shallow_session

_DEEP = "[" * 9_000 + "]" * 9_000
_SCALARS = st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{}\n', max_size=8)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=20
)


def levels(value: Any) -> int:
    deepest, layer = 0, [value]
    while layer := [inner for one in layer if isinstance(one, list | dict) for inner in _inside(one)]:
        deepest += 1
    return deepest


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


@given(_JSON)
def test_json_that_is_not_too_deep_stays_as_it_is(value: Any) -> None:
    body = json.dumps(value).encode()
    assert cut(body) == body


@given(_JSON, _JSON)
def test_only_the_levels_that_are_too_many_are_cut(before: Any, after: Any) -> None:
    body = f'{{"before": {json.dumps(before)}, "deep": {_DEEP}, "after": {json.dumps(after)}}}'.encode()
    read = json.loads(cut(body))
    assert (read["before"], read["after"]) == (before, after)
    assert MOST_LEVELS < levels(read["deep"]) < 900


async def test_kopf_reads_lists_and_watches_with_an_object_that_python_could_not_decode() -> None:
    deep = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "deep"}, "spec": "@"}}).replace('"@"', _DEEP)
    good = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "good"}, "spec": "x" * 300_000}})

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.Response(text=f'{{"items": [{deep}, {good}]}}', content_type="application/json")
        response = web.StreamResponse()
        await response.prepare(request)
        for line in (deep, good, deep):
            await response.write(line.encode() + b"\n")
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestServer(app) as server:
        with pytest.raises(RecursionError):
            json.loads(deep)
        url = str(server.make_url("/"))
        session = shallow_session(kopf.ConnectionInfo(server=url, token="t")).aiohttp_session
        async with session:
            async with session.get(url) as response:
                listed = await response.json()
            assert [one["object"]["metadata"]["name"] for one in listed["items"]] == ["deep", "good"]
            async with session.get(url, params={"watch": "true"}) as response:
                assert isinstance(response, aiohttp.ClientResponse)
                read = b"".join([chunk async for chunk in response.content.iter_chunked(1_000)])
            events = [json.loads(line)["object"] for line in read.splitlines()]
            assert [event["metadata"]["name"] for event in events] == ["deep", "good", "deep"]
            assert events[1]["spec"] == "x" * 300_000
