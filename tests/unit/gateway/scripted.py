"""A backend that answers as its test says, and a gateway in front of it that listens on loopback."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tickwheel_operator.engine.messages import Command, Delivery, Effect, Pull, Pulled, Report, Reported
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.gateway.backend import Leadership
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.schemas import Replica
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.handlers.known import HandlerSchema
from tickwheel_operator.identity.callers import AllowAll, Authenticator, Authorizer, StaticTokenAuthenticator

TOKEN = "a-token-for-tests"
NOW_MS = 1_790_000_000_000
WORKER = {"namespace": "shops", "pool": "shops", "name": "shops-0", "instance": "i-1"}
PULL = {"worker": WORKER, "handlers": ["shop-sync"], "free": 4}
LEADER = Leadership(
    is_leader=True,
    epoch=7,
    ledger="ours",
    leader_url="http://self:8080",
    replicas=(Replica(url="http://self:8080", partitions=[0], epoch=7),),
)

Script = Callable[[Any], Awaitable[Effect]]


async def empty_answers(command: Command) -> Effect:
    """Pulls get nothing, reports are all right."""
    if isinstance(command, Pull):
        return Pulled(request=command.request, deliveries=[])
    assert isinstance(command, Report)
    return Reported(request=command.request, fenced=[], cancel=[])


class ScriptedBackend:
    """Implements `Backend`: remembers the commands, and answers them by a script."""

    def __init__(self, script: Script = empty_answers, *, leadership: Leadership = LEADER) -> None:
        self.script = script
        self.current = leadership
        self.commands: list[Any] = []
        self.cancelled = 0
        self.schemas: dict[tuple[str, str, str], Mapping[str, HandlerSchema]] = {}
        self.called = asyncio.Event()
        self._requests = itertools.count(1)

    def leadership(self) -> Leadership:
        return self.current

    async def call(self, command: Command) -> Effect:
        self.commands.append(command)
        self.called.set()
        try:
            return await self.script(command)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def wants_schemas(self, namespace: str, pool: str, name: str) -> bool:
        return bool(name) and (namespace, pool, name) not in self.schemas

    def take_schemas(self, namespace: str, pool: str, name: str, schemas: Mapping[str, HandlerSchema]) -> None:
        self.schemas[namespace, pool, name] = schemas

    def new_request(self) -> Hashable:
        return next(self._requests)

    def now_ms(self) -> int:
        return NOW_MS

    def now_us(self) -> int:
        return NOW_MS * 1_000


class Caller:
    """A client of the gateway, with the right token unless told otherwise."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway, scheme: str = "http") -> None:
        self.session = session
        self.base = f"{scheme}://127.0.0.1:{gateway.port}"

    async def post(self, path: str, body: Any = None, *, token: str = TOKEN, **extra: Any) -> tuple[int, Any, Any]:
        """Status, the body's JSON, headers. `body` is JSON, or bytes as they are."""
        sent = {"data": body} if isinstance(body, bytes) or body is None else {"json": body}
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(self.base + path, headers=headers, **sent, **extra) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def get(self, path: str, *, token: str = "") -> tuple[int, str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.get(self.base + path, headers=headers) as response:
            return response.status, await response.text(), response.headers


@asynccontextmanager
async def serving(
    backend: ScriptedBackend,
    *,
    authenticator: Authenticator | None = None,
    authorizer: Authorizer | None = None,
    **extra: Any,
) -> AsyncIterator[tuple[Caller, Gateway]]:
    """A started gateway; `extra` are fields of `GatewayConfig`, and `ready` and `tls`."""
    arguments = {name: extra.pop(name) for name in ("ready", "tls") if name in extra}
    gateway = Gateway(
        backend,
        authenticator or StaticTokenAuthenticator(TOKEN),
        authorizer or AllowAll(),
        GatewayConfig(host="127.0.0.1", port=0, **extra),
        **arguments,
    )
    await gateway.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield Caller(session, gateway, "https" if "tls" in arguments else "http"), gateway
    finally:
        await gateway.stop()


def task(**changes: Any) -> TaskSpec:
    """A task without a trigger."""
    fields: dict[str, Any] = {
        "uid": "4711d1b4-5b3d-4e0c-9f8e-000000000000",
        "namespace": "shops",
        "name": "shop-sync",
        "generation": 1,
        "created_ms": 0,
        "pool": "shops",
        "handler": "sync",
    }
    return TaskSpec(**{**fields, **changes})


def delivery(token: int, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "token": token,
        "run_id": f"run-{token}",
        "task": task(),
        "scheduled_ms": NOW_MS,
        "attempt": 1,
        "parameters": b'{"region":"north"}',
    }
    return Delivery(**{**fields, **changes})
