"""Who was not let in, and why: one line in the log for the person who has to mend it, and a count for the metrics.

A worker that is refused tries again for as long as it lives, so a line is written once a minute for each reason and
caller, and for a bounded number of them, in all and of one address: whoever makes up names does not hide the others.
Invariant: no token, and nothing that only the token says, gets into a line
without being marked as the caller's own words.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from math import inf

from tickwheel_operator.gateway.problems import GatewayProblem
from tickwheel_operator.identity.refusal import Reason, Refused

__all__ = ["Refusals", "problem"]

_log = logging.getLogger(__name__)
_WINDOW_S = 60.0
_RECENT_S = 120.0
"""A worker that is refused asks again every 5 s, of a replica at random."""
_ADDRESSES = 2_000
"""The most addresses whose last refusal is remembered; the oldest are forgotten."""
_DETAIL_CHARS = 600
_LINES = 200
"""The most callers that are named a minute."""
_LINES_OF_ONE = 20
"""The most of one address."""


_PROBLEMS = {
    Reason.NO_TOKEN: "unauthenticated",
    Reason.INVALID_TOKEN: "unauthenticated",
    Reason.WRONG_AUDIENCE: "unauthenticated",
    Reason.NO_SUCH_POOL: "no-such-pool",
    Reason.CANNOT_BE_CHECKED: "not-ready",
    Reason.TOO_MANY: "too-many-requests",
}
_HEADERS: Mapping[str, Mapping[str, str]] = {
    "unauthenticated": {"WWW-Authenticate": 'Bearer realm="tickwheel"'},
    "not-ready": {"Retry-After": "1"},
    "too-many-requests": {"Retry-After": "5"},
}


def problem(refused: Refused) -> GatewayProblem:
    """The answer to a caller who is not let in."""
    name = _PROBLEMS.get(refused.reason, "forbidden")
    return GatewayProblem(name, refused.detail, headers=_HEADERS.get(name))


class Refusals:
    """The log and the counts of one gateway."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._counts: dict[str, int] = dict.fromkeys((reason.value for reason in Reason), 0)
        self._since_s = now_s()
        self._told: dict[tuple[Reason, str], int] = {}
        """How often more, in this minute, after the line."""
        self._before: dict[tuple[Reason, str], int] = {}
        self._lines_of: Counter[str] = Counter()
        """Lines of this minute, by address."""
        self._latest: dict[str, tuple[float, str, str]] = {}
        """By address: when, why, and the words."""

    @property
    def counts(self) -> Mapping[str, int]:
        """By reason, since the start."""
        return self._counts

    def latest(self, peers: Collection[str]) -> tuple[str, str] | None:
        """The reason and the words of the last refusal of one of these addresses, if it was of late."""
        known = [found for peer in peers if (found := self._latest.get(_address(peer))) is not None]
        at_s, reason, detail = max(known, default=(-inf, "", ""))
        return (reason, detail) if self._now_s() - at_s <= _RECENT_S else None

    def note(self, reason: Reason, detail: str, *, peer: str, what: str, who: str = "") -> None:
        """`peer` is the caller's address, `what` the request."""
        self._counts[reason.value] += 1
        now_s = self._now_s()
        self._latest.pop(_address(peer), None)
        if len(self._latest) >= _ADDRESSES:
            del self._latest[next(iter(self._latest))]
        self._latest[_address(peer)] = (now_s, reason.value, detail[:_DETAIL_CHARS])
        if now_s - self._since_s >= _WINDOW_S:
            self._since_s, self._before, self._told = now_s, self._told, {}
            self._lines_of.clear()
        key = (reason, who or peer)
        if key in self._told:
            self._told[key] += 1
            return
        if len(self._told) >= _LINES or self._lines_of[peer] >= _LINES_OF_ONE:
            return
        self._told[key] = 0
        self._lines_of[peer] += 1
        more = self._before.get(key, 0)
        times = f" ({more} more times in the minute before)" if more else ""
        _log.warning("refused %s from %s: %s: %s%s", what, peer, reason.value, detail, times)
        if self._lines_of[peer] == _LINES_OF_ONE:
            _log.warning("%d lines of %s within a minute: its others are only counted, as metrics", _LINES_OF_ONE, peer)
        if len(self._told) == _LINES:
            _log.warning("%d callers were refused within a minute: others are only counted, as metrics", _LINES)


def _address(peer: str) -> str:
    """The same for an IPv4 address that came in through an IPv6 socket."""
    return peer.removeprefix("::ffff:")
