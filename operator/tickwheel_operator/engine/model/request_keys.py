"""What an idempotency key was used for, in a few bytes: so that it cannot stand for two different requests.

`state` keeps it for each key whose run has ended; of an open run the request itself is there. Invariant: equal requests
have equal content, whatever the order of their members and however their numbers are written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tickwheel_operator.engine.messages import RunState, StartBackfill, Submission
from tickwheel_operator.engine.model.identity import keyed_run_id
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.triggers.instants import timestamp

__all__ = ["EndedKey", "content_of", "ended_key", "objection_to_keys"]

_MOST_BYTES = 512
"""Of the parameters' names and digests; above it only one digest of all is kept, and no name can be given."""
_DIGEST_BYTES = 6
_NAMES_SHOWN = 5
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class EndedKey(msgspec.Struct, frozen=True, gc=False):
    """A key whose run has ended."""

    state: RunState
    content: bytes = b""
    """As `content_of` gives it."""


_PLAIN = {state: EndedKey(state) for state in RunState}
"""Most keys have no parameters: 200,000 of them share these."""


def ended_key(run: Run, state: RunState) -> EndedKey:
    """What is kept of the run's key when the run ends in this state."""
    content = requested(run)
    return EndedKey(state, content) if content else _PLAIN[state]


def requested(run: Run) -> bytes:
    """The content of the request that made the run."""
    return content_of(run.parameters, run.execution.span_ms)


def content_of(parameters: bytes, span: tuple[int, int] | None = None) -> bytes:
    """Of a request with these parameters (a JSON object or nothing), for a backfill of this span."""
    if not parameters and span is None:
        return b""
    named: dict[str, bytes] | bytes
    try:
        members = _members.decode(parameters) if parameters else {}
        named = {name: _digest(members[name]) for name in sorted(members)}
        if len(content := msgspec.msgpack.encode(named)) > _MOST_BYTES:
            named = _short(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        named = _short(parameters)  # whatever it is: folding a fact never fails for it
    return msgspec.msgpack.encode((span, named)) if named or span is not None else b""


def difference(before: bytes, wanted: Submission | StartBackfill) -> str:
    """In which fields the request differs from one with the content `before`; empty: in none."""
    span = (wanted.from_ms, wanted.to_ms) if isinstance(wanted, StartBackfill) else None
    content = content_of(wanted.parameters, span)
    if content == before:
        return ""
    (span_before, had), (span_now, has) = _read(before), _read(content)
    found = []
    if span_before != span_now:
        found.append(f"backfill: was {_span(span_before)}, is {_span(span_now)}")
    if isinstance(had, dict) and isinstance(has, dict):
        names = sorted(name for name in had.keys() | has.keys() if had.get(name) != has.get(name))
        found += [f"parameters.{name}: {_change(name, had, has)}" for name in names[:_NAMES_SHOWN]]
        if len(names) > _NAMES_SHOWN:
            found.append(f"{len(names) - _NAMES_SHOWN} parameters more")
    elif had != has:
        found.append("parameters: they differ")
    return "; ".join(found)


def objection_to_keys(
    keys: Mapping[str, Run | EndedKey], uid: str, wanted: Sequence[Submission | StartBackfill]
) -> str:
    """Whose key stands for another request of the task already, and what differs; empty: nobody's."""
    among: dict[str, Submission | StartBackfill] = {}
    for one in wanted:
        known = keys.get(keyed_run_id(uid, one.key))
        if known is not None:
            before = requested(known) if isinstance(known, Run) else known.content
            found, whose = difference(before, one), "made a run"
        else:
            first = among.setdefault(one.key, one)
            found = "" if first is one else difference(content_of(first.parameters), one)
            whose = "is used twice in this request"
        if found:
            return (
                f"idempotencyKey {one.key!r} {whose} with another content: {found}. The same key is the same run; "
                "give another request another key"
            )
    return ""


def _change(name: str, had: dict[str, bytes], has: dict[str, bytes]) -> str:
    if name not in had:
        return "is new"
    return "has another value" if name in has else "is missing"


def _span(span: tuple[int, int] | None) -> str:
    return "none" if span is None else f"from {timestamp(span[0])} to {timestamp(span[1])}"


def _read(content: bytes) -> tuple[tuple[int, int] | None, dict[str, bytes] | bytes]:
    if not content:
        return None, {}
    return msgspec.msgpack.decode(content, type=tuple[tuple[int, int] | None, dict[str, bytes] | bytes])


def _digest(value: msgspec.Raw) -> bytes:
    try:
        plain = msgspec.json.encode(_plain(msgspec.json.decode(value)), order="sorted")
    except RecursionError:  # nested as deeply as it may be: then its spelling counts
        plain = bytes(value)
    return _short(plain)


def _short(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def _plain(value: Any) -> Any:
    """1.0 is 1: the API server writes it so."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
