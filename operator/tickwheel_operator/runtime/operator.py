"""The operator's process: its clients of the API server, and one replica that runs until it is told to stop.

Everything has one owner and ends with `stop()`: the gateway last takes reports, the host appends what it decided, the
Lease is released, and a successor goes on within about a second.
"""

from __future__ import annotations

import asyncio
import secrets

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.election.identity import make_identity
from tickwheel_operator.kube.clients import open_clients
from tickwheel_operator.runtime.replica import Replica
from tickwheel_operator.runtime.settings import Settings

__all__ = ["Operator"]


class Operator:
    """One process of the operator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        # A restarted process is another candidate than the one before it, though the pod's name is the same.
        self._identity = make_identity(settings.identity, started_ms=self._clock.now_ms(), nonce=secrets.token_hex(4))
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End in order."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop()`. Raises what ended it, such as `LedgerCorrupt`: a person must look."""
        async with open_clients(self._settings.kubeconfig) as clients:
            await Replica(clients, self._settings, self._clock, self._identity).run(self._stop)
