"""A run's parameters over its task's: a shallow merge of two JSON objects."""

from __future__ import annotations

import msgspec

__all__ = ["merge"]

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def merge(base: bytes, over: bytes) -> bytes:
    """`over`'s members win. Both are JSON objects."""
    if base == b"{}":
        return over
    members = _decoder.decode(base)
    members.update(_decoder.decode(over))
    return _encoder.encode(members)
