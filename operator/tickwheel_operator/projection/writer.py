"""The projection's requests to the API server, and what their answers mean.

Statuses are JSON patches of the status subresource with field manager `tickwheel` that test the object's uid first: a
new object of the same name never gets the status of the old one. (The API server ignores a uid in a merge patch of a
status.) Invariant: each call takes a token first, has a time limit, and raises `WriteFailed` only for what is worth
another try, `WriteRefused` where nothing but another content is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi

from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.workqueue import WorkFailed

__all__ = ["PLURALS", "Outcome", "WriteFailed", "WriteRefused", "Writer"]

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
_JSON_PATCH = "application/json-patch+json"
_PAGE = 500
_NEVER = (400, 405, 413, 415, 422)
_TEST_FAILED = 422
_NO_CAUSE = "the server rejected our request due to an error in our request"
"""What the API server says to a JSON patch whose test fails, or that speaks of a field that is not there."""


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


class WriteRefused(WriteFailed):
    """The API server will never accept this content."""


class Writer:
    """Rate-bounded writes through one client, which is the caller's."""

    def __init__(
        self, client: ApiClient, bucket: Bucket, *, namespaces: tuple[str, ...] = (), timeout_s: float = 15.0
    ) -> None:
        """`namespaces` are those that `views` lists; empty: all."""
        self._objects = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self._bucket = bucket
        self._namespaces = namespaces
        self._timeout_s = timeout_s
        self.writes: dict[tuple[str, str], int] = {}
        """Requests by kind and outcome."""

    async def patch_status(
        self, kind: str, namespace: str, name: str, uid: str, status: Mapping[str, Any], *, has_status: bool
    ) -> Outcome:
        """Merge `status` into the object's; a None in it removes the field. `has_status`: whether it has one already,
        as far as is known; a wrong guess costs two requests."""
        written = await self._patch_status(kind, namespace, name, _status_patch(uid, status, has_status))
        if written.status != _TEST_FAILED:
            return written
        found = await self._read(kind, namespace, name)
        if not found.ok or found.body["metadata"]["uid"] != uid:
            return found if not found.ok else Outcome(409, {})
        again = _status_patch(uid, status, bool(found.body.get("status")))
        written = await self._patch_status(kind, namespace, name, again)
        return Outcome(409, {}) if written.status == _TEST_FAILED else written

    async def _patch_status(self, kind: str, namespace: str, name: str, patch: list[dict[str, Any]]) -> Outcome:
        return await self._call(
            kind,
            f"status of {kind} {namespace}/{name}",
            partial(
                self._objects.patch_namespaced_custom_object_status,
                _GROUP, _VERSION, namespace, PLURALS[kind], name, patch,
                field_manager=_MANAGER, _content_type=_JSON_PATCH, _request_timeout=self._timeout_s,
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
        return await self._read("TaskRun", namespace, name)

    async def _read(self, kind: str, namespace: str, name: str) -> Outcome:
        return await self._call(
            kind,
            f"{kind} {namespace}/{name}",
            partial(
                self._objects.get_namespaced_custom_object, _GROUP, _VERSION, namespace, PLURALS[kind], name,
                _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def delete_run(self, namespace: str, name: str, uid: str) -> Outcome:
        """Delete that very TaskRun object, which is a view."""
        return await self._call(
            "TaskRun",
            f"TaskRun {namespace}/{name}",
            partial(
                self._objects.delete_namespaced_custom_object, _GROUP, _VERSION, namespace, "taskruns", name,
                body=cast("Any", {"preconditions": {"uid": uid}}), _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> Outcome:
        """Create an Event of the core group: one of events.k8s.io never changes its note, only its count."""
        return await self._call(
            "Event",
            f"Event {namespace}/{body['metadata']['name']}",
            partial(
                self._core.create_namespaced_event, namespace, cast("Any", body),
                field_manager=_MANAGER, _request_timeout=self._timeout_s,
            ),
        )  # fmt: skip

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> Outcome:
        """Merge into an Event."""
        return await self._call(
            "Event",
            f"Event {namespace}/{name}",
            partial(
                self._core.patch_namespaced_event, name, namespace, dict(body),
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
            said = str(error.body)[:500]
            if code == _TEST_FAILED and _NO_CAUSE in said:
                outcome = "conflict"
                return Outcome(code, {})
            outcome = "refused" if 400 <= code < 500 and code != 429 else "error"
            # Of a 403 those say "User ... cannot ..." that are about rights; others are of quotas and policies.
            hint = "; grant the operator's account the rules of the chart" if code == 403 and " cannot " in said else ""
            text = f"{what}: {code} {error.reason}: {said}{hint}"
            refused = WriteRefused if code in _NEVER else WriteFailed
            raise refused(text, kind=f"{kind} {code}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome = "unreachable"
            raise WriteFailed(f"{what}: {error!r}", kind=outcome) from error
        finally:
            self.writes[kind, outcome] = self.writes.get((kind, outcome), 0) + 1


def _status_patch(uid: str, status: Mapping[str, Any], has_status: bool) -> list[dict[str, Any]]:
    test = {"op": "test", "path": "/metadata/uid", "value": uid}
    if not has_status:
        present = {name: value for name, value in status.items() if value is not None}
        return [test, {"op": "add", "path": "/status", "value": present}]
    patch: list[dict[str, Any]] = [test]
    for name, value in status.items():
        patch.append({"op": "add", "path": f"/status/{name}", "value": value})
        if value is None:  # set and removed: what is not there cannot be removed
            patch.append({"op": "remove", "path": f"/status/{name}"})
    return patch
