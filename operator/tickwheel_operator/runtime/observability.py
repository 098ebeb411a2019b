"""What people see of this process: status and TaskRun objects, Events, metrics. Wires `projection` to the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from kubernetes.aio.client import ApiClient

from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.watch import Watch
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.runtime.partition import PartitionHost, ViewSink
from tickwheel_operator.runtime.settings import Settings

__all__ = ["MetricsServer", "Observability"]


class Observability:
    sink: ViewSink | None = None

    def __init__(
        self, client: ApiClient, catalog: Catalog, requests: Requests, clock: Clock, settings: Settings
    ) -> None:
        pass

    def read_status(self, kind: str, status: Mapping[str, Any]) -> object:
        return None

    def lead(self, host: PartitionHost, ledger: Ledger | None) -> None: ...

    def follow(self) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()


class MetricsServer:
    def __init__(self, observability: Observability, watch: Watch, host: str, port: int) -> None:
        self.port = port

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
