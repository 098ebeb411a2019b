"""What worker pods use, as `kubectl top pods` shows it: read from `metrics.k8s.io`, where the cluster serves it.

On the leader only. A cluster without a metrics server is as good: then workers' own reports are all there is.
Invariant: one that comes, goes or fails is told once and asked again; what is no longer measured is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from kubernetes.utils.quantity import parse_quantity

from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.kube.resources import POD_METRICS
from tickwheel_operator.pools.template import POOL_LABEL

__all__ = ["PodMetrics", "PoolUsage", "read_usage"]

_log = logging.getLogger(__name__)

_MEBIBYTE = 1 << 20
PoolKey = tuple[str, str]


class PoolUsage(msgspec.Struct, frozen=True):
    """What the pods of one pool use in all."""

    cpu_millis: int
    memory_bytes: int
    pods: int
    """Pods that were measured."""

    @property
    def cpu(self) -> str:
        """As `kubectl top` has it: 120m. Two digits count, so that it is not another with each measurement."""
        return f"{_round(self.cpu_millis)}m"

    @property
    def memory(self) -> str:
        """As `kubectl top` has it: 310Mi."""
        return f"{_round(self.memory_bytes // _MEBIBYTE)}Mi"


def read_usage(listed: Mapping[str, Any]) -> dict[PoolKey, PoolUsage]:
    """The sums of a PodMetricsList. What cannot be read counts as nothing."""
    sums: dict[PoolKey, tuple[Decimal, Decimal, int]] = {}
    for item in listed.get("items") or ():
        metadata = item["metadata"]
        pool = (metadata.get("labels") or {}).get(POOL_LABEL)
        if not pool:
            continue
        key = (metadata["namespace"], pool)
        cpu, memory, pods = sums.get(key, (Decimal(0), Decimal(0), 0))
        for container in item.get("containers") or ():
            usage = container.get("usage") or {}
            cpu += _quantity(usage.get("cpu"))
            memory += _quantity(usage.get("memory"))
        sums[key] = (cpu, memory, pods + 1)
    return {key: PoolUsage(int(cpu * 1000), int(memory), pods) for key, (cpu, memory, pods) in sums.items()}


class PodMetrics:
    """Asks for the figures now and then while this replica leads."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespaces: tuple[str, ...] = (),
        interval_s: float = 15.0,
        changed: Callable[[str, str], None] = lambda namespace, name: None,
    ) -> None:
        """`namespaces`: those that are served; empty: all. `interval_s`: a metrics server measures every 15 s itself.
        `changed` is called with each pool whose figures are others."""
        self._client = client
        self._namespaces = namespaces
        self._interval_s = interval_s
        self._changed = changed
        self._usage: dict[PoolKey, PoolUsage] = {}
        self._leading = asyncio.Event()
        self._problem = ""

    def lead(self) -> None:
        """This replica leads now."""
        self._leading.set()

    def follow(self) -> None:
        """The term is over."""
        self._leading.clear()
        self._usage.clear()

    def usage(self, namespace: str, name: str) -> PoolUsage | None:
        """Of the pool's pods; None: nothing was measured."""
        return self._usage.get((namespace, name))

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._leading.wait()
            await self.poll()
            await asyncio.sleep(self._interval_s)

    async def poll(self) -> None:
        """Ask once. Never raises for what a cluster may lack."""
        try:
            usage: dict[PoolKey, PoolUsage] = {}
            for namespace in self._namespaces or ("",):
                listed = await self._client.call(
                    "GET",
                    POD_METRICS.path(namespace),
                    what="cannot read the metrics of worker pods",
                    query={"labelSelector": POOL_LABEL},
                )
                usage |= read_usage(listed)
        except ApiError as error:  # the API is not there (404), its server is not (503), or says no
            self._say(str(error))
            usage = {}
        else:
            self._say("")
        before, self._usage = self._usage, usage if self._leading.is_set() else {}
        for key in before.keys() | self._usage.keys():
            if before.get(key) != self._usage.get(key):
                self._changed(*key)

    def _say(self, problem: str) -> None:
        """Tell once that it does not work, and once that it does again."""
        if bool(problem) == bool(self._problem):
            return
        self._problem = problem
        if problem:
            _log.info("%s; status.usage of pools stays empty until a metrics server answers", problem)
        else:
            _log.info("the metrics of worker pods can be read now")


def _quantity(text: object) -> Decimal:
    try:
        return Decimal(parse_quantity(text)) if text is not None else Decimal(0)  # type: ignore[no-untyped-call]
    except ValueError:
        return Decimal(0)


def _round(value: int) -> int:
    """To two digits that count."""
    size = max(0, len(str(value)) - 2)
    return int(round(value, -size))
