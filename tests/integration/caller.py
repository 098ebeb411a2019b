"""A raw caller of the gateway: protocol v1 without the SDK, for tests that look at single answers."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Caller"]


@dataclass(frozen=True)
class Answer:
    """`status` is 0 where there was no answer."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    content_type: str = ""

    @property
    def problem(self) -> str:
        """The problem's name; empty for what is no problem document."""
        if self.content_type != "application/problem+json":
            return ""
        return str(self.body["type"]).removeprefix("urn:tickwheel:problem:")

    @property
    def tokens(self) -> list[int]:
        """The fencing tokens of the leases in a pull's answer."""
        return [lease["token"] for lease in self.body.get("leases", ())]


class Caller:
    """One worker, or API user, with one token. Each call is a connection of its own and may run in a thread."""

    def __init__(
        self, token: str, *, namespace: str = "", pool: str = "", name: str = "raw-0", handlers: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._worker = {"namespace": namespace, "pool": pool, "name": name, "instance": f"instance-of-{name}"}
        self._handlers = handlers
        self._tls = tls

    def pull(
        self, url: str, *, free: int = 1, received: int = 0, epoch: int = 0, wait_ms: int = 0, timeout_s: float = 60
    ) -> Answer:
        body = {
            "worker": self._worker, "handlers": list(self._handlers), "free": free, "slots": 1_000,
            "received": received, "epoch": epoch, "waitMs": wait_ms, "nowMs": time.time_ns() // 1_000_000,
        }  # fmt: skip
        return self.call("POST", f"{url}/v1/pull", body, timeout_s=timeout_s)

    def report(self, url: str, *, succeeded: list[int], epoch: int = 0, timeout_s: float = 60) -> Answer:
        body = {"worker": self._worker, "epoch": epoch, "succeeded": succeeded}
        return self.call("POST", f"{url}/v1/report", body, timeout_s=timeout_s)

    def submit(self, url: str, namespace: str, task: str, *, key: str = "", timeout_s: float = 60) -> Answer:
        body = {"runs": [{"idempotencyKey": key}]}
        return self.call("POST", f"{url}/v1/tasks/{namespace}/{task}/runs", body, timeout_s=timeout_s)

    def topology(self, url: str) -> Answer:
        return self.call("GET", f"{url}/v1/topology", None, timeout_s=20)

    def call(self, method: str, url: str, body: object, *, timeout_s: float) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s, context=self._tls) as answer:
                return Answer(answer.status, json.loads(answer.read()), answer.headers.get_content_type())
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read()), error.headers.get_content_type())
        except (OSError, http.client.HTTPException):
            return Answer(0)
