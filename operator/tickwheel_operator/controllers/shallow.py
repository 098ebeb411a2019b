"""A session for kopf that cuts off what is nested too deeply for Python to decode.

kopf decodes a whole list before any of our code sees an object of it, so that one such object would hide all others,
and no replica would ever lead. The admission policies refuse it; where they are off, it is cut here (`api.nesting`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import kopf

from tickwheel_operator.api.nesting import KEPT_LEVELS, cut

__all__ = ["shallow_session"]


def shallow_session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """The session that kopf would make of the same connection, with answers that are cut. Call it on kopf's loop."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=_Response,
    )
    return kopf.AiohttpSession(server=info.server, default_namespace=info.default_namespace, aiohttp_session=session)


class _Response(aiohttp.ClientResponse):
    """Answers to lists are decoded by `json`; those to watches are read line by line from `content`."""

    async def json(self, **_: Any) -> Any:
        body = await self.read()
        try:
            return json.loads(body)
        except RecursionError:
            return json.loads(cut(body))

    async def start(self, connection: Any) -> _Response:
        await super().start(connection)
        self.content = cast("aiohttp.StreamReader", _Lines(self.content))
        return self


class _Lines:
    """A stream of which kopf reads whole lines, each one event of a watch."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._stream.iter_chunked(size):
            *lines, last = chunk.split(b"\n")
            for line in lines:
                yield _readable(rest + line) + b"\n"
                rest = b""
            rest += last
        if rest:
            yield _readable(rest)


def _readable(line: bytes) -> bytes:
    # To count is quick, and few objects have as many lists and objects as could be too deep.
    return line if line.count(b"[") + line.count(b"{") <= KEPT_LEVELS else cut(line)
