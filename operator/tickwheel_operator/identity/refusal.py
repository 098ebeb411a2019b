"""Why a caller is not let in: one exception with its reason. What answer that makes is the gateway's to say."""

from __future__ import annotations

import enum

__all__ = ["Reason", "Refused"]


class Reason(enum.Enum):
    """Why a caller was not let in: the label `reason` of the metric, and the word in the log."""

    NO_TOKEN = "NoToken"  # noqa: S105
    INVALID_TOKEN = "InvalidToken"  # noqa: S105
    """The API server does not accept it: expired, of a pod that is gone, not its own."""
    WRONG_AUDIENCE = "WrongAudience"
    NOT_A_SERVICE_ACCOUNT = "NotAServiceAccount"
    OTHER_NAMESPACE = "OtherNamespace"
    NO_SUCH_POOL = "NoSuchPool"
    ACCOUNT_NOT_ADMITTED = "AccountNotAdmitted"
    NOT_BOUND_TO_A_POD = "NotBoundToAPod"
    """A pool with a template takes only tokens that kubelet projected into its pods."""
    POD_OF_ANOTHER_POOL = "PodOfAnotherPool"
    POD_OF_NO_POOL = "PodOfNoPool"
    NAME_IS_NOT_THE_PODS = "NameIsNotThePods"
    NOT_PERMITTED = "NotPermitted"
    """RBAC does not let the caller submit runs."""
    CANNOT_BE_CHECKED = "CannotBeChecked"
    """The API server could not be asked; the caller tries again."""
    TOO_MANY = "TooMany"
    """The caller asked too often, or from an address that did."""
    TOO_MANY_CONNECTIONS = "TooManyConnections"
    """It was closed at once."""
    TOO_SLOW = "TooSlow"
    """The connection was closed: no request, or none that was authorized, came in time."""
    PLAIN_HTTP = "PlainHTTP"
    """No TLS at the TLS port."""
    HANDSHAKE = "HandshakeFailed"


class Refused(Exception):
    """The caller is not let in. `detail` is for the caller, and quotes no secret."""

    def __init__(self, reason: Reason, detail: str, *, who: str = "") -> None:
        """`who` tells callers apart in the log, such as the pod; empty: the address does."""
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.who = who
