"""An API server that holds objects in memory, for what the commands say to people when it refuses or breaks.

It answers `get` and `create` as the real one does, with `Status` objects; `tests/integration/test_cli.py` asks the real
one. A test may put `refusals` and `broken` in the way, or let a `TaskRun` go through states.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

__all__ = ["ApiServer"]

_PREFIX = "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/{plural}"


class ApiServer:
    """Runs in a thread of its own while it is entered."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.kinds = {"scheduledtasks", "calendars", "taskruns", "workerpools"}
        self.asked: list[str] = []
        """Method and path of each request."""
        self.refusals: dict[str, int] = {}
        """By plural: the status of every answer about it."""
        self.broken = 0
        """So many connections are cut before an answer."""
        self.states: Iterator[dict[str, Any]] = iter(())
        """What `status` of a TaskRun is, from one `get` to the next; the last one stays."""
        self.leases: list[dict[str, Any]] | None = None
        """Leases of all namespaces; None: the user may not list them, there or in one namespace."""
        self.kubeconfig = folder / "kubeconfig"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        context = {"cluster": "here", "user": "me", "namespace": "shops"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": context}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "me", "user": {}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def put(self, plural: str, body: dict[str, Any], namespace: str = "shops") -> None:
        """An object, as it is stored."""
        metadata = {
            "uid": f"uid-{len(self.objects)}", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            **body["metadata"], "namespace": namespace,
        }  # fmt: skip
        self.objects[plural, namespace, metadata["name"]] = {**body, "metadata": metadata}

    async def _start(self) -> int:
        application = web.Application()
        application.router.add_get(_PREFIX + "/{name}", self._get)
        application.router.add_post(_PREFIX, self._create)
        application.router.add_get("/apis/coordination.k8s.io/v1/leases", self._list_leases)
        application.router.add_get("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", self._list_leases)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def _get(self, request: web.Request) -> web.StreamResponse:
        plural, namespace, name = (request.match_info[part] for part in ("plural", "namespace", "name"))
        if (refused := self._refused(request, plural)) is not None:
            return refused
        stored = self.objects.get((plural, namespace, name))
        if stored is None:
            return _status(404, "NotFound", f'{plural}.tickwheel.io "{name}" not found', name)
        if plural == "taskruns" and (status := next(self.states, None)) is not None:
            stored["status"] = status
        return web.json_response(stored)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        if (refused := self._refused(request, plural)) is not None:
            return refused
        body = await request.json()
        key = (plural, namespace, body["metadata"]["name"])
        if key in self.objects:
            return _status(409, "AlreadyExists", f'{plural}.tickwheel.io "{key[2]}" already exists', key[2])
        self.put(plural, body, namespace)
        return web.json_response(self.objects[key], status=201)

    async def _list_leases(self, request: web.Request) -> web.StreamResponse:
        if self.leases is None:
            return _status(403, "Forbidden", "leases is forbidden", "")
        return web.json_response(
            {"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {}, "items": self.leases}
        )

    def _refused(self, request: web.Request, plural: str) -> web.StreamResponse | None:
        self.asked.append(f"{request.method} {request.path}")
        if self.broken and request.transport is not None:
            self.broken -= 1
            request.transport.abort()
            return web.Response()
        if plural not in self.kinds:
            return web.Response(status=404, text="404 page not found\n")
        status = self.refusals.get(plural)
        return None if status is None else _status(status, "Refused", f"{plural} is not for you", "")


def _status(code: int, reason: str, message: str, name: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code,
        "details": {"name": name, "group": "tickwheel.io"},
    }  # fmt: skip
    return web.json_response(body, status=code)
