"""Looks up names in threads that nobody waits for.

asyncio's own look-up runs in the loop's executor, whose threads must end before the process does: while DNS is away
each takes up to a minute, so a worker that was told to leave would stay for as long. `_client` uses this one instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Resolver"]

_FLAGS = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver(AbstractResolver):
    """Name to addresses, by the system."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the host. Raises OSError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def settle(found: list[ResolveResult], error: OSError | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found: list[ResolveResult] = []
            failure: OSError | None = None
            try:
                found = _addresses(host, port, family)
            except (OSError, UnicodeError) as error:
                failure = error if isinstance(error, OSError) else OSError(f"{host!r} is no host name: {error}")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, found, failure)

        threading.Thread(target=look_up, name="tickwheel-resolver", daemon=True).start()
        return await answer

    async def close(self) -> None:
        """Nothing to give back."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    known = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [_result(host, *entry) for entry in known]


def _result(hostname: str, family: int, kind: int, proto: int, name: str, address: tuple[Any, ...]) -> ResolveResult:
    # With its scope, where it has one; numbers only, so that nobody is asked.
    host, port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return ResolveResult(hostname=hostname, host=host, port=int(port), family=family, proto=proto, flags=_FLAGS)
