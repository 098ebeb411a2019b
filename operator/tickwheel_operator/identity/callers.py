"""Who is calling, and what they may do: the seams, and the simple implementations.

The gateway authenticates every request that names a worker, a task or the topology, and then asks one of two
questions: may the caller speak for this pool (pull, report), may it start runs in this namespace (submit). The
implementations that ask Kubernetes are in `identity.token_review` and `identity.permission`; those here are for dev
mode and tests. Why somebody is not let in is a `refusal.Refused`, which the server logs. A token is a secret: it is
never logged, stored, or put into a message.
"""

from __future__ import annotations

import enum
import hmac
from typing import Protocol

import msgspec

from tickwheel_operator.identity.refusal import Reason, Refused

__all__ = [
    "AllowAll",
    "Authenticator",
    "Authorizer",
    "PoolAccess",
    "Principal",
    "PrincipalKind",
    "StaticTokenAuthenticator",
]


class PrincipalKind(enum.Enum):
    """What sort of caller it is."""

    STATIC = "static"
    """Knows the shared token; may speak for any pool."""
    SERVICE_ACCOUNT = "service-account"
    """A Kubernetes ServiceAccount: may speak for pools of its own namespace that admit it."""
    USER = "user"
    """Any other Kubernetes user: speaks for no pool, may submit where RBAC lets it."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller."""

    username: str
    kind: PrincipalKind
    namespace: str = ""
    """The namespace of a ServiceAccount, the only one in which it may speak for pools."""
    account: str = ""
    """The name of a ServiceAccount."""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What else Kubernetes knows of the user; passed on when it is asked for permission."""
    pod: str = ""
    """The pod that the token is bound to, as the API server says, in `namespace`; empty: the token is of no pod."""
    pod_uid: str = ""


class PoolAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Who may speak for a pool."""

    uid: str
    """Of the WorkerPool object."""
    has_template: bool
    """Its workers are pods that the operator made, and only those."""
    accounts: frozenset[str]
    """ServiceAccounts of its namespace (`access.serviceAccounts`); empty: any."""


class Authenticator(Protocol):
    """Tells who holds a token. Called for every request: an answer that is known costs no I/O."""

    async def authenticate(self, token: str, source: str) -> Principal:
        """`token` is what followed `Bearer` (empty: there was none), `source` the caller's address. Raises `Refused`,
        with `CANNOT_BE_CHECKED` when it cannot be told now."""
        ...

    async def check_worker(self, principal: Principal, namespace: str, pool: str, worker: str) -> None:
        """Raises `Refused` unless the principal may speak for this worker of this pool."""
        ...


class Authorizer(Protocol):
    """Tells whether a principal may start runs."""

    async def check_submit(self, principal: Principal, namespace: str) -> None:
        """Raises `Refused` unless it may."""
        ...


class StaticTokenAuthenticator:
    """One token that all share: for dev mode and tests. Whoever has it may speak for any pool."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("the static token is empty: anybody would be let in; give one of 16 characters or more")
        self._token = token.encode()

    _PRINCIPAL = Principal(username="static", kind=PrincipalKind.STATIC)

    async def authenticate(self, token: str, source: str) -> Principal:
        if hmac.compare_digest(token.encode(errors="surrogateescape"), self._token):
            return self._PRINCIPAL
        raise Refused(
            Reason.INVALID_TOKEN if token else Reason.NO_TOKEN,
            "the token is not the right one: send the header `Authorization: Bearer <token>` with the token that the "
            "operator was started with",
        )

    async def check_worker(self, principal: Principal, namespace: str, pool: str, worker: str) -> None:
        return None


class AllowAll:
    """Everybody who is authenticated may start runs: for dev mode and tests."""

    async def check_submit(self, principal: Principal, namespace: str) -> None:
        return None
