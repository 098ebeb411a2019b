"""Kinds that the API has and this version does nothing with: each object is told so in its conditions.

Which kinds these are is a line in `api.supported`. The spec is not read: whatever it says, nothing comes of it.
"""

from __future__ import annotations

from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api import Resource, sentence, unsupported_kind
from tickwheel_operator.kinds.descriptor import Kind
from tickwheel_operator.kinds.seen import Fault, RawObject, Seen

__all__ = ["UnsupportedKind"]


class UnsupportedKind(Kind[Resource, Seen]):
    """A kind without a controller."""

    def __init__(self, model: type[Resource]) -> None:
        super().__init__(model, Seen)
        self._fault = Fault(reasons.NOT_SUPPORTED, sentence([unsupported_kind(self.name)]))

    def read(self, seen: Seen, raw: RawObject) -> Seen:
        return replace(seen, fault=self._fault)
