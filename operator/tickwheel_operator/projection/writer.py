"""The projection's requests to the API server, and what their answers mean.

Statuses are merge patches of the status subresource with field manager `tickwheel`; the object's uid goes with them,
so that a new object of the same name never gets the status of the old one. Invariant: each call takes a token first,
has a time limit, and raises `WriteFailed` only for what is worth another try.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, ApiException, CustomObjectsApi, EventsV1Api

from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.workqueue import WorkFailed

__all__ = ["PLURALS", "Outcome", "WriteFailed", "Writer"]

PLURALS = {
    "ScheduledTask": "scheduledtasks",
    "WorkerPool": "workerpools",
    "TaskRun": "taskruns",
    "Workflow": "workflows",
    "WorkflowRun": "workflowruns",
    "Calendar": "calendars",
    "AlertChannel": "alertchannels",
}
_GROUP, _VERSION = "tickwheel.io", "v1alpha1"
_MANAGER = "tickwheel"
_MERGE = "application/merge-patch+json"
_PAGE = 500


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request."""

    status: int
    """HTTP; 404: the object is gone, 409: it is another one or exists."""
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class WriteFailed(WorkFailed):
    """The API server did not carry it out, and may another time. The message names the object and what to mend."""


class Writer:
    """Rate-bounded writes through one client, which is the caller's."""

    def __init__(
        self, client: ApiClient, bucket: Bucket, *, namespaces: tuple[str, ...] = (), timeout_s: float = 15.0
    ) -> None:
        """`namespaces` are those that `views` lists; empty: all."""
        self._objects = CustomObjectsApi(client)
        self._events = EventsV1Api(client)
        self._bucket = bucket
        self._namespaces = namespaces
        self._timeout_s = timeout_s
        self.writes: dict[tuple[str, str], int] = {}
        """Requests by kind and outcome."""

    async def patch_status(self, kind: str, namespace: str, name: str, uid: str, status: Mapping[str, Any]) -> Outcome:
        """Merge `status` into the object's; a None in it removes the field."""
        body = {"metadata": {"uid": uid}, "status": status}
        return await self._call(
            kind,
            f"status of {kind} {namespace}/{name}",
            partial(
                self._objects.patch_namespaced_custom_object_status,
                _GROUP, _VERSION, namespace, PLURALS[kind], name, body,
                field_manager=_MANAGER, _content_type=_MERGE, _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def create_run(self, namespace: str, body: Mapping[str, Any]) -> Outcome:
        """Create a TaskRun object."""
        return await self._call(
            "TaskRun",
            f"TaskRun {namespace}/{body['metadata']['name']}",
            partial(
                self._objects.create_namespaced_custom_object, _GROUP, _VERSION, namespace, "taskruns", dict(body),
                field_manager=_MANAGER, _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def read_run(self, namespace: str, name: str) -> Outcome:
        """Get a TaskRun object."""
        return await self._call(
            "TaskRun",
            f"TaskRun {namespace}/{name}",
            partial(
                self._objects.get_namespaced_custom_object,
                _GROUP,
                _VERSION,
                namespace,
                "taskruns",
                name,
                _request_timeout=self._timeout_s,
            ),
        )

    async def delete_run(self, namespace: str, name: str) -> Outcome:
        """Delete a TaskRun object that is a view."""
        return await self._call(
            "TaskRun",
            f"TaskRun {namespace}/{name}",
            partial(
                self._objects.delete_namespaced_custom_object,
                _GROUP,
                _VERSION,
                namespace,
                "taskruns",
                name,
                _request_timeout=self._timeout_s,
            ),
        )

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> Outcome:
        """Create an Event of events.k8s.io/v1."""
        return await self._call(
            "Event",
            f"Event {namespace}/{body['metadata']['name']}",
            partial(
                self._events.create_namespaced_event,
                namespace,
                cast("Any", body),
                field_manager=_MANAGER,
                _request_timeout=self._timeout_s,
            ),
        )

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> Outcome:
        """Merge into an Event."""
        return await self._call(
            "Event",
            f"Event {namespace}/{name}",
            partial(
                self._events.patch_namespaced_event, name, namespace, dict(body),
                field_manager=_MANAGER, _content_type=_MERGE, _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def views(self, label_selector: str) -> AsyncIterator[Mapping[str, Any]]:
        """All TaskRun objects with these labels, page by page."""
        for namespace in self._namespaces or ("",):
            token = ""
            while True:
                listed = await self._page(namespace, label_selector, token)
                if not listed.ok:
                    raise WriteFailed("the list of TaskRun objects took too long; it is read again from the start")
                for item in listed.body["items"]:
                    yield item
                token = listed.body["metadata"].get("continue") or ""
                if not token:
                    break

    async def _page(self, namespace: str, label_selector: str, token: str) -> Outcome:
        options: dict[str, Any] = {
            "label_selector": label_selector,
            "limit": _PAGE,
            "_request_timeout": self._timeout_s,
        }
        if token:
            options["_continue"] = token
        api = self._objects
        request: Callable[[], Awaitable[object]]
        if namespace:
            request = partial(api.list_namespaced_custom_object, _GROUP, _VERSION, namespace, "taskruns", **options)
        else:
            request = partial(api.list_custom_object_for_all_namespaces, _GROUP, _VERSION, "taskruns", **options)
        return await self._call("TaskRun", "the TaskRun objects", request)

    async def _call(self, kind: str, what: str, request: Callable[[], Awaitable[object]]) -> Outcome:
        outcome = "error"
        await self._bucket.take()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await request()
            outcome = "ok"
            return Outcome(200, answer if isinstance(answer, dict) else {})
        except ApiException as error:
            code = int(error.status or 0)
            if code in (404, 409, 410):
                outcome = {404: "gone", 409: "conflict", 410: "expired"}[code]
                return Outcome(code, {})
            outcome = "refused" if 400 <= code < 500 and code != 429 else "error"
            said = str(error.body)[:500]
            # Of a 403 those say "User ... cannot ..." that are about rights; others are of quotas and policies.
            hint = "; grant the operator's account the rules of the chart" if code == 403 and " cannot " in said else ""
            text = f"{what}: {code} {error.reason}: {said}{hint}"
            raise WriteFailed(text, kind=f"{kind} {code}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome = "unreachable"
            raise WriteFailed(f"{what}: {error!r}", kind=outcome) from error
        finally:
            self.writes[kind, outcome] = self.writes.get((kind, outcome), 0) + 1
