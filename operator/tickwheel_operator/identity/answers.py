"""Answers of the API server that are remembered for a while: bounded in number, the oldest go first."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Answers"]

_Value = TypeVar("_Value")


class Answers(Generic[_Value]):
    """Each has an end, after which it is not given any more. Times are of the boot clock, milliseconds."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, tuple[int, _Value]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, boot_ms: int) -> _Value | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and boot_ms < entry[0] else None

    def put(self, key: bytes, value: _Value, until_ms: int) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (until_ms, value)

    def forget(self, key: bytes) -> None:
        self._entries.pop(key, None)
