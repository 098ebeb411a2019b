"""An API server that is slow, or fails, with reviews only: a proxy between an operator and a real one.

As a webhook that authenticates or authorizes makes it: all else goes through at once, watches included. It is a process
of its own, `python -m tests.integration.slow_reviews '{...}'`, since it must not compete with its test for the
interpreter. How it treats reviews is in a file, and may change while it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from tests.integration.processes import Program

from tickwheel_cluster import Access
from tickwheel_cluster.ports import draw_ports

__all__ = ["Manner", "SlowReviews"]

_DROPPED = {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "content-encoding"}


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How reviews are treated."""

    delay_s: float = 0.0
    status: int = 0
    """An answer instead of the API server's; 0: its own."""


class SlowReviews(Program):
    """The proxy. Operators reach it by `kubeconfig`."""

    def __init__(self, cluster: Access, folder: Path, manner: Manner) -> None:
        self.port = draw_ports("proxy")["proxy"]
        self._manner = folder / "reviews.json"
        self.treat(manner)
        self._folder = folder
        ca = folder / "api-server.crt"
        ca.write_bytes(cluster.ca_file.read_bytes())
        settings = {"port": self.port, "upstream": cluster.url, "ca": str(ca), "manner": str(self._manner)}
        command = [sys.executable, "-m", "tests.integration.slow_reviews", json.dumps(settings)]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        super().__init__("slow-reviews", command, environment, folder / "slow-reviews.log")

    def treat(self, manner: Manner) -> None:
        """Treat reviews so from now on."""
        new = self._manner.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(manner))
        new.rename(self._manner)

    def kubeconfig(self, original: Path) -> Path:
        """The same account, through the proxy."""
        config: dict[str, Any] = json.loads(original.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path = self._folder / f"through-the-proxy-{original.name}"
        shutil.copymode(original, path) if path.exists() else path.touch(0o600)
        path.write_text(json.dumps(config))
        return path

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/version", timeout=5):
                    return
            except OSError as error:
                if getattr(error, "code", 0) in (401, 403):
                    return
                time.sleep(0.1)
        raise AssertionError(f"the proxy is not ready:\n{self.log_tail()}")


async def _serve(settings: dict[str, Any]) -> None:
    tls = ssl.create_default_context(cafile=settings["ca"])
    manner = Path(settings["manner"])
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            if request.path.endswith(("/tokenreviews", "/subjectaccessreviews")):
                treat = msgspec.json.decode(manner.read_bytes(), type=Manner)
                await asyncio.sleep(treat.delay_s)
                if treat.status:
                    return web.json_response({"kind": "Status", "reason": "InternalError"}, status=treat.status)
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
            async with session.request(
                request.method, settings["upstream"] + str(request.rel_url), data=body or None, headers=headers
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        server = web.Server(forward, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings["port"], backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
