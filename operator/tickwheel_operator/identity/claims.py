"""What a ServiceAccount token says of itself, read without checking it: for messages, and to forget it in time.

Nothing is granted by it. A token that the API server refused may say anything, so what is shown is cut short and
printable, and marked as the token's own words.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

__all__ = ["Claims", "read_claims"]

_FOREVER_MS = 86_400_000
_SHOWN = 64


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Kubernetes(msgspec.Struct, frozen=True):
    namespace: str = ""
    pod: _Named = _Named()
    serviceaccount: _Named = _Named()


class _Payload(msgspec.Struct, frozen=True):
    exp: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    aud: list[str] | str = ""
    kubernetes: _Kubernetes = msgspec.field(name="kubernetes.io", default=_Kubernetes())


class Claims(msgspec.Struct, frozen=True):
    """What it says; a field that it does not say is empty."""

    expires_s: float | None = None
    """Seconds since the epoch; None: it does not say."""
    audiences: tuple[str, ...] = ()
    namespace: str = ""
    pod: str = ""
    account: str = ""

    def remaining_ms(self, now_ms: int) -> int:
        """How long it still lives; a day where it does not say."""
        return _FOREVER_MS if self.expires_s is None else max(0, self.expires_ms() - now_ms)

    def expires_ms(self) -> int:
        return int((self.expires_s or 0) * 1000)

    def audiences_shown(self) -> str:
        return ", ".join(map(_shown, self.audiences[:3]))

    def holder(self) -> str:
        """Whose it says it is: ` (of pod a/b, ServiceAccount c, as it says itself)`, or nothing."""
        parts = []
        if self.pod:
            parts.append(f"pod {_shown(self.namespace)}/{_shown(self.pod)}")
        if self.account:
            parts.append(f"ServiceAccount {_shown(self.namespace)}/{_shown(self.account)}")
        return f" (of {', '.join(parts)}, as it says itself)" if parts else ""


def read_claims(token: str) -> Claims | None:
    """None: it is no JWT, or not one whose claims are of the right types."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return None
    payload = parts[1]
    try:
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        found = msgspec.json.decode(text, type=_Payload)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        return None
    audiences = (found.aud,) if isinstance(found.aud, str) else tuple(found.aud)
    of = found.kubernetes
    return Claims(found.exp, tuple(a for a in audiences if a), of.namespace, of.pod.name, of.serviceaccount.name)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:_SHOWN])
