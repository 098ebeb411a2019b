"""A stranger that floods the gateway, as a process: `python -m tests.integration.flood_client '{...}'`.

Bounded in callers and seconds, and ended before by SIGTERM. At the end it prints how often it got which status (0: no
answer) as JSON. It runs beside what it floods, on one machine, so it does as little as it can for a request.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import signal
import ssl
import sys
import time
from collections import Counter

import aiohttp
import msgspec

__all__ = ["FloodPlan"]

_BODY = json.dumps(
    {
        "worker": {"namespace": "shop", "pool": "shop", "name": "s", "instance": "i"},
        "handlers": ["h"],
        "free": 1,
        "slots": 1,
        "waitMs": 0,
        "nowMs": 0,
    }
).encode()
_PAUSE_S = 0.05
"""After an answer that a polite caller would wait longer for."""


class FloodPlan(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    kind: str
    """`tokens`: random ones that could be good; `submissions`: of one account, to namespaces that it makes up;
    `headers`: connections that never finish theirs."""
    callers: int
    seconds: float
    source: str = "127.0.0.1"
    """The address to come from, of loopback."""
    token: str = ""
    tls: bool = False


class _Flood:
    def __init__(self, plan: FloodPlan) -> None:
        self._plan = plan
        self.answers: Counter[int] = Counter()

    async def run(self) -> None:
        plan = self._plan
        connector = aiohttp.TCPConnector(limit=0, local_addr=(plan.source, 0), ssl=False)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            call = self._stall if plan.kind == "headers" else lambda: self._call(session)
            callers = [asyncio.create_task(self._repeat(call)) for _ in range(plan.callers)]
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), plan.seconds)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def _repeat(self, call) -> None:  # type: ignore[no-untyped-def]
        while True:
            status = await call()
            self.answers[status] += 1
            if status in (0, 429, 503):
                await asyncio.sleep(_PAUSE_S)

    async def _call(self, session: aiohttp.ClientSession) -> int:
        plan = self._plan
        base = f"{'https' if plan.tls else 'http'}://{plan.host}:{plan.port}"
        if plan.kind == "tokens":
            url, token = f"{base}/v1/pull", _token()
        else:
            url, token = f"{base}/v1/tasks/made-up-{secrets.token_hex(6)}/t/runs", plan.token
        try:
            async with session.post(url, data=_BODY, headers={"Authorization": f"Bearer {token}"}) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    async def _stall(self) -> int:
        plan = self._plan
        try:
            reader, writer = await asyncio.open_connection(
                plan.host, plan.port, local_addr=(plan.source, 0), ssl=_unchecked() if plan.tls else None
            )
            writer.write(b"POST /v1/pull HTTP/1.1\r\nHost: gateway\r\nX-Slow: ")
            try:
                await reader.read()
            finally:
                writer.transport.abort()
        except OSError:
            pass
        return 0


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _token() -> str:
    """Nothing but the signature is wrong with it."""
    claims = {
        "aud": ["tickwheel"],
        "exp": int(time.time()) + 3_600,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": f"system:serviceaccount:shop:{secrets.token_hex(4)}",
    }
    return f"{_part({'alg': 'RS256', 'kid': 'x'})}.{_part(claims)}.{secrets.token_urlsafe(256)}"


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def main() -> None:
    flood = _Flood(msgspec.json.decode(sys.argv[1], type=FloodPlan))
    asyncio.run(flood.run())
    print(json.dumps(flood.answers))


if __name__ == "__main__":
    main()
