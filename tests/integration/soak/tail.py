"""Every segment of a ledger as it is written, also those that compaction deletes later.

It watches the LedgerSegment objects from before the first operator starts. A broken watch (the API server was
restarted) goes on at the revision where it broke; a revision that etcd has forgotten is an error, never a gap.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from typing import Any, Self

import msgspec

from tickwheel_cluster import ControlPlane

__all__ = ["LedgerTail", "TailSegment"]

_SILENCE_S = 30.0
_PAUSE_S = 0.3


class TailSegment(msgspec.Struct, frozen=True):
    """One segment as it was created."""

    sequence: int
    kind: str
    epoch: int
    data: bytes


class LedgerTail:
    """A thread that copies what is appended to the ledger of one namespace."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self._host = cluster.url.removeprefix("https://")
        self._path = f"/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/ledgersegments"
        user = json.loads(cluster.admin_kubeconfig.read_text())["users"][0]["user"]
        self._tls = ssl.create_default_context(cafile=str(cluster.ca_file))
        self._tls.load_cert_chain(user["client-certificate"], user["client-key"])
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._segments: dict[int, TailSegment] = {}
        self._version = ""
        self._thread = threading.Thread(target=self._run, name="ledger-tail", daemon=True)
        self.failure = ""

    def __enter__(self) -> Self:
        listed = json.loads(self._open(self._path).read())
        self._version = listed["metadata"]["resourceVersion"]
        for item in listed["items"]:
            self._take(item)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def segments(self) -> list[TailSegment]:
        """All so far, in the order of their sequences. Raises AssertionError where the watch has lost some."""
        assert not self.failure, self.failure
        with self._lock:
            return [segment for _, segment in sorted(self._segments.items())]

    def _run(self) -> None:
        while not self._stop.is_set() and not self.failure:
            try:
                answer = self._open(f"{self._path}?watch=1&allowWatchBookmarks=true&resourceVersion={self._version}")
                while not self._stop.is_set() and (line := answer.readline()):
                    self._see(json.loads(line))
            except (OSError, http.client.HTTPException, ValueError):
                # The server is gone, or cut a line off: go on from the last revision that was read.
                self._stop.wait(_PAUSE_S)

    def _see(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "ERROR":
                if event["object"].get("code") == 410:
                    self.failure = f"etcd has forgotten revision {self._version}: the tail has a gap"
                else:
                    raise OSError(event["object"].get("message", "the watch broke off"))
            case "ADDED":
                self._take(event["object"])
            case "MODIFIED":
                self.failure = f"segment {event['object']['metadata']['name']} was changed; segments never are"
        if event["type"] != "ERROR":
            self._version = event["object"]["metadata"]["resourceVersion"]

    def _take(self, item: dict[str, Any]) -> None:
        spec = item["spec"]
        segment = TailSegment(spec["sequence"], spec["kind"], spec["epoch"], base64.b64decode(spec["data"]))
        with self._lock:
            known = self._segments.setdefault(segment.sequence, segment)
        if known != segment:
            self.failure = f"sequence {segment.sequence} was written twice: the name was free again"

    def _open(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self._host, context=self._tls, timeout=_SILENCE_S)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{path}: HTTP {answer.status}")
        return answer
