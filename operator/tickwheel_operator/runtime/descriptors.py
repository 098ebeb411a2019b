"""File descriptors: raised to what the process may have, and shared out between the gateway and the rest.

A process without a free descriptor cannot open a connection to the API server either, so that callers of the gateway
could cost the leader its Lease. Many systems give a process 1,024 until it asks for more.
"""

from __future__ import annotations

import logging
import resource

__all__ = ["connections_with_descriptors"]

_log = logging.getLogger(__name__)
_RESERVED = 400
"""For the API server's connections, the watch, metrics, files: more than `kube.clients` opens in all."""


def connections_with_descriptors(wanted: int) -> int:
    """How many connections the gateway may hold, at most `wanted`: as many as there are descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(soft // 2, soft - _RESERVED)
    _log.warning("the gateway takes %d connections, not %d: the process may open %d files", possible, wanted, soft)
    return possible
