"""The two questions that the gateway asks of the API server: whose token is it, and may its holder create runs.

`token_review` and `permission` ask through the seam `Reviewer`. Invariant: nothing that the API server quotes gets into
an error, since some authenticators quote the token, and an answer that cannot be read is no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from tickwheel_operator.identity.callers import Principal
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiUnanswered
from tickwheel_operator.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, ApiResource

__all__ = ["KubernetesReviewer", "Review", "ReviewUnavailable", "Reviewer"]


class ReviewUnavailable(Exception):
    """The API server could not be asked. The message is for the operator's log."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server says of a token."""

    authenticated: bool
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    audiences: tuple[str, ...] = ()
    """Those of the asked-for audiences that the token has; empty from an authenticator that knows none."""


class Reviewer(Protocol):
    """The two questions. Both raise `ReviewUnavailable`."""

    async def review_token(self, token: str, audience: str) -> Review:
        """Whose token is it."""
        ...

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        """Whether RBAC lets the principal create TaskRuns there, and the API server's reason."""
        ...


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    """Left out where it is false."""
    user: _User = msgspec.field(default_factory=_User)
    audiences: tuple[str, ...] | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool
    reason: str = ""


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


_Answer = TypeVar("_Answer")
_token_decoder = msgspec.json.Decoder(_TokenReview)
_access_decoder = msgspec.json.Decoder(_AccessReview)


class KubernetesReviewer:
    """The questions, put to the API server. Its account needs `create` on tokenreviews and subjectaccessreviews
    (the ClusterRole `system:auth-delegator`)."""

    def __init__(self, client: KubeClient, *, timeout_s: float = 10.0) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def review_token(self, token: str, audience: str) -> Review:
        spec = {"token": token, "audiences": [audience]}
        status = (await self._ask(TOKEN_REVIEWS, spec, _token_decoder)).status
        user = status.user
        return Review(
            authenticated=status.authenticated,
            username=user.username,
            uid=user.uid,
            groups=user.groups or (),
            extra=tuple((user.extra or {}).items()),
            audiences=status.audiences or (),
        )

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        attributes = {"group": "tickwheel.io", "resource": "taskruns", "verb": "create", "namespace": namespace}
        spec: dict[str, Any] = {
            "user": principal.username,
            "groups": list(principal.groups),
            "extra": {key: list(values) for key, values in principal.extra},
            "resourceAttributes": attributes,
        }
        if principal.uid:
            spec["uid"] = principal.uid
        status = (await self._ask(SUBJECT_ACCESS_REVIEWS, spec, _access_decoder)).status
        return status.allowed, status.reason

    async def _ask(
        self, resource: ApiResource, spec: Mapping[str, Any], decoder: msgspec.json.Decoder[_Answer]
    ) -> _Answer:
        kind = resource.kind
        body = {"apiVersion": resource.api_version, "kind": kind, "spec": spec}
        try:
            answer = await self._client.request(
                "POST", resource.path(), what=f"create a {kind}", body=body, timeout_s=self._timeout_s
            )
        except ApiUnanswered as error:
            # Callers read this: they need not learn where the API server is.
            cause = type(error.__cause__ or error).__name__
            raise ReviewUnavailable(f"the API server could not be asked to create a {kind}: {cause}") from None
        if not answer.ok:
            hint = ""
            if answer.status == 403:
                hint = " (grant the operator's account the ClusterRole system:auth-delegator)"
            raise ReviewUnavailable(f"the API server refused to create a {kind}: {answer.status} {answer.reason}{hint}")
        try:
            return decoder.decode(answer.body)
        except msgspec.MsgspecError as error:
            # Of the path and the type only: the text around them may be the token.
            raise ReviewUnavailable(f"the API server's {kind} cannot be read: {_place(error)}") from None


def _place(error: msgspec.MsgspecError) -> str:
    return str(error)[:200] if isinstance(error, msgspec.ValidationError) else "it is not valid JSON"
