"""WorkerPools for the tests of this folder."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.api import WorkerPool, parse

__all__ = ["NAMESPACE", "a_pool", "worker"]

NAMESPACE = "shops"


def worker(**fields: Any) -> dict[str, Any]:
    """A container called worker."""
    return {"name": "worker", "image": "shop:1", **fields}


def a_pool(
    *containers: dict[str, Any],
    name: str = "shop",
    uid: str = "uid-1",
    metadata: dict[str, Any] | None = None,
    pod: dict[str, Any] | None = None,
    **spec: Any,
) -> WorkerPool:
    """A pool with a template of these containers (default: one worker), and `pod` beside them."""
    template: dict[str, Any] = {"spec": {"containers": list(containers) or [worker()], **(pod or {})}}
    if metadata is not None:
        template["metadata"] = metadata
    pool = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": 1},
            "spec": {"template": template, **spec},
        }
    )
    assert isinstance(pool, WorkerPool)
    return pool
