"""How deeply values may be nested: the bound, the question, and the cut for JSON that Python could not decode.

The API server takes objects of up to 10,000 levels, Python's decoder some 900.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["KEPT_LEVELS", "MOST_LEVELS", "cut", "is_nested_within"]

MOST_LEVELS = 100
"""Mappings and lists that may be in each other, an object of the API being the first."""
KEPT_LEVELS = 2 * MOST_LEVELS
"""What a cut leaves: more than the models allow an object and what a list and a watch put around it, so that the object
is refused with the field's name; far less than the decoder takes."""
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def is_nested_within(value: Any, levels: int) -> bool:
    """Whether no more mappings and lists than these are in each other."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return True
    return not level


def cut(body: bytes) -> bytes:
    """Return the JSON with `null` in the place of each list and mapping below the kept levels. Linear in its size."""
    kept: list[bytes] = []
    depth = taken = 0
    for token in _TOKEN.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                if depth == KEPT_LEVELS + 1:
                    kept += (body[taken : token.start()], b"null")
            case b"]" | b"}":
                if depth == KEPT_LEVELS + 1:
                    taken = token.end()
                depth -= 1
    return b"".join((*kept, body[taken:]))
