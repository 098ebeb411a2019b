"""The projection's requests to the API server, and what their answers mean.

Statuses are JSON patches of the status subresource with field manager `tickwheel` that test the object's uid first: a
new object of the same name never gets the status of the old one. (The API server ignores a uid in a merge patch of a
status.) Invariant: each call takes a token first, has a time limit, and raises `ApiError` for all but a yes, an object
that is gone, another in its place, and a list that took too long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from tickwheel_operator.kube.client import JSON_PATCH, MERGE_PATCH, KubeClient
from tickwheel_operator.kube.errors import ApiUnavailable
from tickwheel_operator.kube.resources import EVENTS, OURS, ApiResource
from tickwheel_operator.projection.bucket import Bucket

__all__ = ["Outcome", "Writer"]

_MANAGED = {"fieldManager": "tickwheel"}
_RUNS = OURS["TaskRun"]
_PAGE = 500
_NOT_THERE = {404: "gone", 409: "conflict", 410: "expired"}
_TEST_FAILED = 422
_NO_CAUSE = "the server rejected our request due to an error in our request"
"""What the API server says to a JSON patch whose test fails, or that speaks of a field that is not there."""
_HINT = "; grant the operator's account the rules of the chart"


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request."""

    status: int
    """HTTP; 404: the object is gone, 409: it is another one or exists."""
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Writer:
    """Rate-bounded writes through one client, which is the caller's."""

    def __init__(
        self, client: KubeClient, bucket: Bucket, *, namespaces: tuple[str, ...] = (), timeout_s: float = 15.0
    ) -> None:
        """`namespaces` are those that `views` lists; empty: all."""
        self._client = client
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
        what = f"status of {kind} {namespace}/{name}"
        path = OURS[kind].path(namespace, name, "status")
        return await self._call(kind, what, "PATCH", path, query=_MANAGED, body=patch, content_type=JSON_PATCH)

    async def create_run(self, namespace: str, body: Mapping[str, Any]) -> Outcome:
        """Create a TaskRun object."""
        return await self._create(_RUNS, namespace, body)

    async def read_run(self, namespace: str, name: str) -> Outcome:
        """Get a TaskRun object."""
        return await self._read("TaskRun", namespace, name)

    async def delete_run(self, namespace: str, name: str, uid: str) -> Outcome:
        """Delete that very TaskRun object, which is a view."""
        body = {"preconditions": {"uid": uid}}
        return await self._call(
            "TaskRun", f"TaskRun {namespace}/{name}", "DELETE", _RUNS.path(namespace, name), body=body
        )

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> Outcome:
        """Create an Event of the core group: one of events.k8s.io never changes its note, only its count."""
        return await self._create(EVENTS, namespace, body)

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> Outcome:
        """Merge into an Event."""
        what, path = f"Event {namespace}/{name}", EVENTS.path(namespace, name)
        return await self._call("Event", what, "PATCH", path, query=_MANAGED, body=body, content_type=MERGE_PATCH)

    async def views(self, label_selector: str) -> AsyncIterator[Mapping[str, Any]]:
        """All TaskRun objects with these labels, page by page."""
        for namespace in self._namespaces or ("",):
            query: dict[str, str | int] = {"labelSelector": label_selector, "limit": _PAGE}
            while True:
                listed = await self._call("TaskRun", "the TaskRun objects", "GET", _RUNS.path(namespace), query=query)
                if not listed.ok:
                    raise ApiUnavailable("the list of TaskRun objects took too long; it is read again from the start")
                for item in listed.body["items"]:
                    yield item
                token = listed.body["metadata"].get("continue")
                if not token:
                    break
                query["continue"] = token

    async def _create(self, resource: ApiResource, namespace: str, body: Mapping[str, Any]) -> Outcome:
        what = f"{resource.kind} {namespace}/{body['metadata']['name']}"
        return await self._call(resource.kind, what, "POST", resource.path(namespace), query=_MANAGED, body=body)

    async def _read(self, kind: str, namespace: str, name: str) -> Outcome:
        return await self._call(kind, f"{kind} {namespace}/{name}", "GET", OURS[kind].path(namespace, name))

    async def _call(self, kind: str, what: str, method: str, path: str, **options: Any) -> Outcome:
        counted = "unreachable"
        await self._bucket.take()
        try:
            answer = await self._client.request(method, path, what=what, timeout_s=self._timeout_s, **options)
            counted = "error"
            answer.raise_unanswered(what)
            if answer.status in _NOT_THERE:
                counted = _NOT_THERE[answer.status]
                return Outcome(answer.status, {})
            if answer.status == _TEST_FAILED and _NO_CAUSE in answer.message:
                counted = "conflict"
                return Outcome(answer.status, {})
            counted = "refused"
            answer.check(what, hint=_HINT)
            counted = "ok"
            return Outcome(answer.status, answer.object(what))
        finally:
            self.writes[kind, counted] = self.writes.get((kind, counted), 0) + 1


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
