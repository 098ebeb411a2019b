"""What goes on while strangers flood the gateway: `benchmarks/flood/run.py`, about four minutes.

A real API server behind a proxy that answers reviews after half a second, one operator, a worker that has been there
all along, and one new caller after the other. For each flood the same figures twice, right after each other: without
and with. What counts is their ratio. `README.md` says what is measured.
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cluster")]

from tests.integration.installation import (  # noqa: E402
    OPERATOR_ACCOUNT,
    apply,
    create_namespace,
    install,
    install_operator,
)
from tests.integration.processes import OperatorProcess  # noqa: E402
from tests.integration.slow_reviews import Manner, SlowReviews  # noqa: E402
from tests.integration.test_floods import Flood  # noqa: E402

from tickwheel_cluster import Access, ControlPlane  # noqa: E402

SYSTEM, NAMESPACE = "flood-system", "flood-shop"
REVIEW_S = 0.5
FLOODS = ("tokens", "submissions", "headers")
ADDRESSES = ("127.0.0.66", "127.0.0.67", "127.0.0.68")
NO_ANSWER_S = 30.0
"""A caller gives up after this, and it counts as so long."""


class Bench:
    def __init__(self, cluster: Access, folder: Path, stack: ExitStack, *, tls: bool) -> None:
        self._cluster = cluster
        self._folder = folder
        self._tls = tls
        install_operator(cluster, SYSTEM)
        create_namespace(cluster, NAMESPACE)
        for name in ("worker", "intruder"):
            metadata = {"name": name, "namespace": NAMESPACE}
            apply(cluster, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        metadata = {"name": "shop", "namespace": NAMESPACE}
        apply(
            cluster,
            {"apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool", "metadata": metadata, "spec": {}},
        )
        proxy = stack.enter_context(SlowReviews(cluster, folder, Manner(delay_s=REVIEW_S)))
        proxy.wait_ready()
        kubeconfig = proxy.kubeconfig(cluster.service_account_kubeconfig(SYSTEM, OPERATOR_ACCOUNT))
        self.operator = stack.enter_context(
            OperatorProcess(
                cluster, folder, "operator", namespace=SYSTEM, TICKWHEEL_KUBECONFIG=str(kubeconfig),
                TICKWHEEL_WATCH_NAMESPACES=NAMESPACE, TICKWHEEL_TLS_MODE="Own" if tls else "Off",
                TICKWHEEL_LEASE_DURATION_MS="15000", TICKWHEEL_RENEW_DEADLINE_MS="10000",
                TICKWHEEL_RETRY_PERIOD_MS="2000",
            )
        )  # fmt: skip
        self._wait_leads()

    def _wait_leads(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.operator.metrics().get('tickwheel_leader{partition="0"}'):
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(self.operator.log_tail())

    def measure(self, seconds: float) -> dict[str, Any]:
        """Both callers side by side for a while."""
        ended = time.monotonic() + seconds
        pulls: list[float] = []
        worker = threading.Thread(target=self._pull, args=(ended, pulls))
        worker.start()
        new = list(self._new_callers(ended))
        worker.join()
        metrics = self.operator.metrics()
        return {
            "pull_ms": _spread(pulls),
            "new_caller_ms": _spread(new),
            "leads": metrics.get('tickwheel_leader{partition="0"}'),
            "epoch": metrics.get('tickwheel_epoch{partition="0"}'),
            "memory_mib": round(metrics["process_resident_memory_bytes"] / 2**20),
        }

    def _pull(self, ended: float, times: list[float]) -> None:
        """A worker that is known, on a connection that it has."""
        token, connection = self._token("worker", 3_600), self._connect()
        while time.monotonic() < ended:
            times.append(_timed(partial(_pull_once, connection, token, "known")))
            time.sleep(0.05)

    def _new_callers(self, ended: float) -> Iterator[float]:
        """Each with a connection and a token that nobody has seen: it waits for a review."""
        number = 0
        while time.monotonic() < ended:
            number += 1
            token = self._token("worker", 1_000 + time.monotonic_ns() % 80_000)
            yield _timed(partial(self._pull_anew, token, f"new-{number}"))

    def _pull_anew(self, token: str, name: str) -> int:
        connection = self._connect()
        try:
            return _pull_once(connection, token, name)
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        if not self._tls:
            return HTTPConnection("127.0.0.1", self.operator.port, timeout=NO_ANSWER_S)
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        return HTTPSConnection("127.0.0.1", self.operator.port, timeout=NO_ANSWER_S, context=unchecked)

    def _token(self, account: str, seconds: int) -> str:
        return self._cluster.service_account_token(NAMESPACE, account, audience="tickwheel", ttl_seconds=seconds)

    @contextmanager
    def flood(self, kind: str, callers: int, seconds: float) -> Iterator[None]:
        token = self._token("intruder", 3_600)
        floods = [
            Flood(
                self.operator, self._folder, kind=kind, callers=callers, seconds=seconds, source=address, token=token,
                tls=self._tls,
            ).start()
            for address in ADDRESSES
        ]  # fmt: skip
        time.sleep(2)
        try:
            yield
        finally:
            for flood in floods:
                flood.kill()
            time.sleep(3)


def _timed(call: Callable[[], int]) -> float:
    """Milliseconds until it succeeds; refused or broken off, it tries again, as a worker does."""
    began = time.monotonic()
    while time.monotonic() < began + NO_ANSWER_S:
        try:
            if call() == 200:
                break
        except (OSError, HTTPException):
            pass
        time.sleep(0.1)
    return (time.monotonic() - began) * 1000


def _pull_once(connection: HTTPConnection, token: str, name: str) -> int:
    worker = {"namespace": NAMESPACE, "pool": "shop", "name": name, "instance": f"i-{name}"}
    body = {"worker": worker, "handlers": ["none"], "free": 1, "slots": 1, "waitMs": 0, "nowMs": 0}
    try:
        connection.request("POST", "/v1/pull", json.dumps(body), {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        connection.close()
        raise
    return answer.status


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "number": len(ordered),
        "median": round(statistics.median(ordered), 1),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1),
        "max": round(ordered[-1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--callers", type=int, default=500, help="of each of three addresses")
    parser.add_argument("--floods", nargs="*", choices=FLOODS, default=list(FLOODS))
    parser.add_argument("--plain", action="store_true", help="plain HTTP, without TLS")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tickwheel-flood-") as name, ExitStack() as stack:
        folder = Path(name)
        cluster = stack.enter_context(ControlPlane(folder / "cluster"))
        install(cluster)
        bench = Bench(cluster, folder, stack, tls=not arguments.plain)
        for kind in arguments.floods:
            without = bench.measure(arguments.seconds)
            with bench.flood(kind, arguments.callers, arguments.seconds + 10):
                under = bench.measure(arguments.seconds)
            results[kind] = {"without": without, "with": under}
            print(f"{kind}: {json.dumps(results[kind])}", flush=True)
    print(f"\n{'flood':<12} {'pull, median':>24} {'new caller, median':>28}  term")
    for kind, result in results.items():
        cells = []
        for figure in ("pull_ms", "new_caller_ms"):
            before, after = (result[side][figure]["median"] for side in ("without", "with"))
            cells.append(f"{before:.1f} -> {after:.1f} ms, {after / before:.1f}x")
        kept = result["with"]["leads"] and result["with"]["epoch"] == result["without"]["epoch"]
        print(f"{kind:<12} {cells[0]:>24} {cells[1]:>28}  {'kept' if kept else 'lost'}")


if __name__ == "__main__":
    main()
