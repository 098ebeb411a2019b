"""When an authority and a leaf are replaced: pure decisions by time, so that a whole year can be played in a test.

    make the first ---------> current
    2/3 of its life gone ---> a next one is made; workers are told to trust it too, nothing is signed with it
    publish delay over -----> the next one signs: it is current; the old one's key is forgotten, it is trusted on
    the old one expires ----> it is trusted no longer: no leaf of it can be valid

`own` runs it on every replica, with the state in one Secret, written by whoever comes first. Invariant: whoever trusts
a bundle that is younger than the publish delay can verify each leaf that any replica shows, whichever state that
replica has last read.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography import x509

from tickwheel_operator.tls.authority import Authority, Leaf, pem

__all__ = ["Authorities", "Terms", "advance", "bundle", "leaf_due"]

_DAY_MS = 86_400_000
_RENEW = 2 / 3
"""The part of a certificate's life after which the next is made: cert-manager's habit."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How long things last, milliseconds."""

    authority_ms: int = 365 * _DAY_MS
    """Life of an authority."""
    leaf_ms: int = 30 * _DAY_MS
    """Life of a leaf; it ends with its authority at the latest. Short: a leaf cannot be called back."""
    publish_ms: int = 3_600_000
    """How long a new authority is trusted before it signs. Workers have it within about two minutes (kubelet's sync of
    a ConfigMap); the rest is for clocks that differ, and for an operator that could not write for a while."""

    def faults(self) -> list[str]:
        """What cannot be right, one sentence each."""
        if not 0 < self.publish_ms * 4 <= self.authority_ms:
            return ["tls_publish_minutes must be above 0, and at most a quarter of tls_ca_days, for example 60 and 365"]
        if not 0 < self.leaf_ms <= self.authority_ms:
            return ["tls_leaf_days must be above 0, and at most tls_ca_days, for example 30 and 365"]
        return []


class Authorities(msgspec.Struct, frozen=True):
    """What the Secret holds."""

    current: Authority
    """Signs leaves."""
    next: Authority | None = None
    """Trusted, signs from its publish delay on."""
    previous: tuple[x509.Certificate, ...] = ()
    """Trusted until they expire; nobody has their keys any more."""


def advance(known: Authorities | None, now_ms: int, terms: Terms, make: Callable[[int, int], Authority]) -> Authorities:
    """What should be there now: `known` itself where nothing is due. `make` is `authority.make_authority`."""
    if known is None:
        return Authorities(make(now_ms, terms.authority_ms))
    previous = tuple(old for old in known.previous if _expires_ms(old) > now_ms)
    if previous != known.previous:
        known = Authorities(known.current, known.next, previous)
    current, following = known.current, known.next
    expired = current.expires_ms <= now_ms
    if following is not None and following.expires_ms <= now_ms:
        following = None
    if following is not None and (expired or now_ms >= following.made_ms + terms.publish_ms):
        kept = previous if expired else (*previous, current.certificate)
        return Authorities(following, None, kept)
    if expired:
        # Nobody was there to renew it for months. Workers have to fetch the new bundle before they can come back.
        return Authorities(make(now_ms, terms.authority_ms), None, previous)
    if following is None and now_ms >= _due_ms(current.made_ms, current.expires_ms):
        return Authorities(current, make(now_ms, terms.authority_ms), previous)
    return known if following is known.next else Authorities(current, None, previous)


def bundle(known: Authorities) -> str:
    """What workers are to trust: PEM, the current authority first."""
    following = () if known.next is None else (known.next.certificate,)
    return pem([known.current.certificate, *following, *known.previous]).decode()


def leaf_due(leaf: Leaf | None, known: Authorities, now_ms: int) -> bool:
    """Whether a replica needs a new leaf."""
    if leaf is None or leaf.issuer != known.current.certificate:
        return True
    return now_ms >= _due_ms(leaf.made_ms, leaf.expires_ms) and leaf.expires_ms < known.current.expires_ms


def _due_ms(made_ms: int, expires_ms: int) -> int:
    return made_ms + int((expires_ms - made_ms) * _RENEW)


def _expires_ms(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp()) * 1000
