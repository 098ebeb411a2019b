"""Which loopback ports a control plane listens on.

Ports come from below the range that the kernel gives to outgoing connections. From within it, a client that keeps
calling a stopped API server is sooner or later given the server's own port: it is then connected to itself, and the
server cannot come back.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

__all__ = ["draw_ports"]

_LOWEST = 10_000
_FEWEST = 1_000
"""Fewer ports than this below the kernel's range are not worth a draw."""
_TRIES = 200


def draw_ports(*names: str) -> dict[str, int]:
    """A port for each name, different ones, that nobody listens on now. Another process may still be faster."""
    with contextlib.ExitStack() as held:
        return {name: held.enter_context(_bound()).getsockname()[1] for name in names}


def _bound() -> socket.socket:
    end = _ephemeral_start()
    if end - _LOWEST >= _FEWEST:
        for _ in range(_TRIES):
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", random.randrange(_LOWEST, end)))
            except OSError:
                probe.close()
            else:
                return probe
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    return probe


def _ephemeral_start() -> int:
    """The first port that the kernel gives to outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
