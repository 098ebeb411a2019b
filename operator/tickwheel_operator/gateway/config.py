"""The gateway's settings: where it listens, and what it takes from a caller."""

from __future__ import annotations

import msgspec

from tickwheel_operator.gateway.connections import ConnectionLimits

__all__ = ["GatewayConfig"]


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens, and its limits. The bounds of single fields are in `gateway.schemas`."""

    host: str = "0.0.0.0"  # noqa: S104  (a pod's gateway is there for other pods)
    """The address to listen on."""
    port: int = 8080
    """The port to listen on; 0 takes a free one, which `Gateway.port` then tells."""
    lease_ms: int = 15_000
    """How long a lease lasts without a renewal, as workers are told. Must be the engine's `lease_ms`."""
    max_wait_ms: int = 30_000
    """The longest that a pull may wait; a longer `waitMs` is cut to it. Keep it under the idle time-out of a proxy."""
    answer_grace_ms: int = 30_000
    """How long the engine and the ledger may take to answer (for a pull: beyond its wait) before the caller gets
    503 `not-ready` and asks again."""
    body_timeout_s: float = 30.0
    """How long a caller may take to send a body, seconds."""
    connections: ConnectionLimits = ConnectionLimits()
    """How many connections there may be, and for how long."""
    keepalive_s: float = 120.0
    """How long a connection may be idle between two requests, and how long the headers of a later request may take,
    seconds. More than the 75 s after which the SDK closes one that it does not need."""
    stop_grace_s: float = 5.0
    """How long `Gateway.stop` waits for requests that are being answered, seconds."""
    max_pull_bytes: int = 256 * 1024
    """The largest body of a pull."""
    max_report_bytes: int = 8 * 1024 * 1024
    """The largest body of a report."""
    max_submit_bytes: int = 4 * 1024 * 1024
    """The largest body of a submission."""
    max_result_bytes: int = 64 * 1024
    """The largest result of one attempt, as JSON."""
    max_parameters_bytes: int = 64 * 1024
    """The largest parameters of one run, as JSON."""
