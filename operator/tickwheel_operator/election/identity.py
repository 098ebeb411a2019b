"""The name under which a replica stands for election: its pod, when its process began, and something drawn.

Written into the Lease and the ledger's `Epoch` segments. A pod that restarts its container keeps its name, so the start
tells which of its processes is meant when one of them is said to have ended.
"""

from __future__ import annotations

__all__ = ["make_identity", "read_identity"]


def make_identity(pod: str, *, started_ms: int, nonce: str) -> str:
    """Of one process; `started_ms` is by the clock of its node."""
    return f"{pod}_{started_ms}-{nonce}"


def read_identity(identity: str) -> tuple[str, int]:
    """The pod, and when the process began; 0: it does not say."""
    pod, _, process = identity.rpartition("_")
    started, _, _ = process.partition("-")
    return pod, int(started) if started.isascii() and started.isdigit() else 0
