"""Whether an operator serves the cluster at all: commands that ask a cluster say so when none does.

Without an operator every object shows what was last written: Ready, and a next instant that is past by now. The
election's Lease knows better. Invariants: it is advice on standard error; whoever may not read Leases, and whatever
else keeps it from an answer, gets none; no command fails or waits for long because of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

import click
import msgspec

from tickwheel_operator.cli.moments import distance
from tickwheel_operator.election.lease import LEASE_NAME
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError, ApiRefused
from tickwheel_operator.kube.resources import LEASES

__all__ = ["OPERATOR_NAMESPACE", "warn_of_a_past_instant", "warn_unless_served"]

OPERATOR_NAMESPACE = "tickwheel-system"
_ANSWER_WITHIN_S = 5
_SPARE_MS = 60_000
"""A Lease that expired less than this ago may be on its way to another replica."""
_LAG_MS = 300_000
"""A status may be older than this only when nobody writes it."""
_WHAT_HOLDS = (
    "nothing fires until one does, and objects show what was last written; see docs/runbook.md, section NobodyServes"
)


async def warn_unless_served(client: KubeClient, namespace: str = OPERATOR_NAMESPACE) -> None:
    """Say on standard error that no operator leads, where that is known. `namespace` is asked by those who may not
    list the Leases of all."""
    with contextlib.suppress(ApiError):
        if why := await _unserved(client, namespace):
            click.echo(f"warning: no operator of Tickwheel leads: {why}; {_WHAT_HOLDS}", err=True)


def warn_of_a_past_instant(instant_ms: int, now_ms: int) -> None:
    """Say so where the next instant that a status knows is long past: for those who may not read Leases."""
    if instant_ms + _LAG_MS > now_ms:
        return
    click.echo(
        f"warning: its status knows no later instant than one {distance(instant_ms, now_ms)}, which has neither fired "
        f"nor been skipped: no operator of Tickwheel seems to serve it; {_WHAT_HOLDS}",
        err=True,
    )


class _Metadata(msgspec.Struct):
    namespace: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: datetime | None = None


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


class _Leases(msgspec.Struct):
    items: list[_Lease]


_decoder = msgspec.json.Decoder(_Leases)


async def _unserved(client: KubeClient, namespace: str) -> str:
    """Why nobody leads; empty: somebody does, or it is not known."""
    try:
        leases, now_ms = await _leases(client, "")
        where = "in any namespace"
    except ApiRefused as error:
        if error.status != 403:
            raise
        leases, now_ms = await _leases(client, namespace)
        # It may be in another namespace, of which this user knows nothing.
        where = ""
    if not leases:
        return f"there is no Lease {LEASE_NAME} {where}" if where else ""
    silent = [(lease, silence_ms) for lease in leases if (silence_ms := _silence_ms(lease, now_ms)) > _SPARE_MS]
    if len(silent) < len(leases):
        return ""
    lease, silence_ms = min(silent, key=lambda pair: pair[1])
    name = f"the Lease {LEASE_NAME} in namespace {lease.metadata.namespace}"
    if not lease.spec.holder_identity:
        return f"{name} was given up by the last one and taken by nobody"
    return f"{name} expired {distance(now_ms - silence_ms, now_ms)}; its last holder is {lease.spec.holder_identity}"


async def _leases(client: KubeClient, namespace: str) -> tuple[list[_Lease], int]:
    """The Leases of operators, and the instant of the API server's clock."""
    query = {"fieldSelector": f"metadata.name={LEASE_NAME}"}
    answer = await client.request(
        "GET", LEASES.path(namespace), what="list leases", query=query, timeout_s=_ANSWER_WITHIN_S
    )
    answer.check("list leases")
    return answer.read(_decoder, "list leases").items, _now_ms(answer.headers)


def _silence_ms(lease: _Lease, now_ms: int) -> int:
    """How long the Lease has been over, by the API server's clock; a Lease that nobody ever held, for ever."""
    renewed = lease.spec.renew_time
    if renewed is None:
        return now_ms
    ends_ms = renewed.timestamp() * 1000 + (lease.spec.lease_duration_seconds or 0) * 1000
    return int(now_ms - ends_ms)


def _now_ms(headers: Mapping[str, str]) -> int:
    """By the clock of the API server, which is one of the cluster's; a user's machine may be minutes off."""
    with contextlib.suppress(TypeError, ValueError):
        return int(parsedate_to_datetime(headers.get("Date", "")).timestamp() * 1000)
    return time.time_ns() // 1_000_000
