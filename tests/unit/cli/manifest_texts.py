"""Manifests as people write them, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["calendar", "task", "together"]


def task(trigger: dict[str, Any] | None, name: str = "shop-sync", **more: Any) -> str:
    """A ScheduledTask; `metadata` and fields of the spec by name."""
    metadata = {"name": name, **more.pop("metadata", {})}
    spec = {"pool": "shops", "handler": "shop-sync", **({} if trigger is None else {"trigger": trigger}), **more}
    return _manifest("ScheduledTask", metadata, spec)


def calendar(name: str, *dates: str, **spec: Any) -> str:
    return _manifest("Calendar", {"name": name}, {"dates": list(dates), **spec})


def together(*manifests: str) -> str:
    return "\n---\n".join(manifests)


def _manifest(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> str:
    # JSON is YAML too.
    document = {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    return json.dumps(document, indent=1)
