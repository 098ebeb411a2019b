"""Which ends of other replicas' containers are told: each once, and none of before this replica looked."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from tickwheel_operator.election.peers import CONTAINER, Peers

ENDED = {"terminated": {"containerID": "containerd://1", "finishedAt": "2026-03-01T10:00:00Z"}}
ENDED_AGAIN = {"terminated": {"containerID": "containerd://2", "finishedAt": "2026-03-01T11:00:00Z"}}
RUNNING = {"running": {"startedAt": "2026-03-01T10:00:07Z"}}


class Watch:
    """A transport that knows one answer."""

    def __init__(self, *events: tuple[str, dict[str, Any]]) -> None:
        self._events = events

    async def lines(self, *_: object, **__: object) -> AsyncGenerator[bytes, None]:
        for kind, pod in self._events:
            yield json.dumps({"type": kind, "object": pod}).encode()


def pod(state: dict[str, Any], last_state: dict[str, Any] | None = None, uid: str = "u0") -> dict[str, Any]:
    container = {"name": CONTAINER, "state": state, "lastState": last_state or {}}
    return {"metadata": {"name": "replica-0", "uid": uid}, "status": {"containerStatuses": [container]}}


async def told(*events: tuple[str, dict[str, Any]]) -> list[tuple[str, int]]:
    heard: list[tuple[str, int]] = []
    watch: Any = Watch(*events)
    peers = Peers(watch, namespace="n", selector="app=tickwheel", on_end=lambda *end: heard.append(end))
    await peers._watch()
    return [(name, before_ms - 1_772_359_200_000) for name, before_ms in heard]


async def test_the_end_of_a_container_is_told_once_with_the_instant_that_its_processes_began_before() -> None:
    first, again = ("MODIFIED", pod(ENDED)), ("MODIFIED", pod(RUNNING, ENDED))
    assert await told(("ADDED", pod(RUNNING)), first, first, again) == [("replica-0", 0)]


async def test_an_end_of_before_this_replica_looked_is_not_told_and_the_next_one_is() -> None:
    seen = ("ADDED", pod(RUNNING, ENDED))
    assert await told(seen) == []
    assert await told(seen, ("MODIFIED", pod(ENDED_AGAIN, ENDED))) == [("replica-0", 3_600_000)]


async def test_the_end_of_a_pod_that_is_deleted_is_told() -> None:
    assert await told(("ADDED", pod(RUNNING)), ("DELETED", pod(ENDED))) == [("replica-0", 0)]
