"""Every segment of a ledger as it is written, also those that compaction deletes later.

It watches the LedgerSegment objects from before the first operator starts. Where the watch breaks (the API server was
restarted) it lists anew; what was written and compacted away in between shows as a gap in the sequences, which
`account.order_faults` reports.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
from typing import Any, Self

import msgspec

from tickwheel_cluster import Access

__all__ = ["LedgerTail", "TailSegment"]

_SILENCE_S = 30.0
_PAUSE_S = 0.05


class TailSegment(msgspec.Struct, frozen=True):
    """One segment as it was created."""

    sequence: int
    kind: str
    epoch: int
    data: bytes


class LedgerTail:
    """A thread that copies what is appended to the ledger of one namespace."""

    def __init__(self, cluster: Access, namespace: str) -> None:
        self._host = cluster.url.removeprefix("https://")
        self._path = f"/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/ledgersegments"
        self._tls, self._headers = cluster._admin()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._segments: dict[int, TailSegment] = {}
        self._version = ""
        self._thread = threading.Thread(target=self._run, name="ledger-tail", daemon=True)
        self._socket: socket.socket | None = None
        self.failure = ""

    def __enter__(self) -> Self:
        self._list()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_SILENCE_S)

    def segments(self) -> list[TailSegment]:
        """All so far, in the order of their sequences. Raises AssertionError where the watch has lost some."""
        assert not self.failure, self.failure
        with self._lock:
            return [segment for _, segment in sorted(self._segments.items())]

    def _run(self) -> None:
        while not self._stop.is_set() and not self.failure:
            try:
                answer = self._open(f"{self._path}?watch=1&resourceVersion={self._version}")
                while not self._stop.is_set() and (line := answer.readline()):
                    self._see(json.loads(line))
                self._list()
            except (OSError, http.client.HTTPException, ValueError):
                # The server is gone, or has cut a line off, or no longer knows the revision: the next list is whole.
                self._stop.wait(_PAUSE_S)
                with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                    self._list()

    def _list(self) -> None:
        listed = json.loads(self._open(self._path).read())
        for item in listed["items"]:
            self._take(item)
        self._version = listed["metadata"]["resourceVersion"]

    def _see(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "ERROR":
                raise OSError(event["object"].get("message", "the watch broke off"))
            case "ADDED":
                self._take(event["object"])
            case "MODIFIED":
                self.failure = f"segment {event['object']['metadata']['name']} was changed; segments never are"

    def _take(self, item: dict[str, Any]) -> None:
        spec = item["spec"]
        segment = TailSegment(spec["sequence"], spec["kind"], spec["epoch"], base64.b64decode(spec["data"]))
        with self._lock:
            known = self._segments.setdefault(segment.sequence, segment)
        if known != segment:
            self.failure = f"sequence {segment.sequence} was written twice: the name was free again"

    def _open(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self._host, context=self._tls, timeout=_SILENCE_S)
        connection.request("GET", path, headers=self._headers)
        self._socket = connection.sock
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{path}: HTTP {answer.status}")
        return answer
