"""The table of values in the chart's README, made from the comments of values.yaml.

Run `python charts/document.py [--check]`. A comment that begins with `# --` describes the value under it; keys without
one are only groups. It exits 1 where a value has no description, and with `--check` where the README is stale: `make
lint` runs that.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["described", "leaves", "main", "table"]

_CHART = Path(__file__).parent / "tickwheel"
_BEGIN, _END = "<!-- values -->", "<!-- end of values -->"
_KEY = re.compile(r"^( *)([A-Za-z]+):")
_WIDEST = 60


def described(text: str) -> dict[str, str]:
    """The description of each value that has one, by its path."""
    found: dict[str, str] = {}
    path: list[str] = []
    words: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            words = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#"):
            words = [*words, stripped.removeprefix("#").strip()] if words else words
        elif key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if words:
                found[".".join(path)] = " ".join(words)
            words = []
    return found


def leaves(values: Mapping[str, Any], documented: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that must be described, and its default. A described object is one value."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path not in documented and isinstance(value, dict) and value:
            yield from leaves(value, documented, f"{path}.")
        else:
            yield path, value


def table(text: str) -> str:
    """The table. Raises ValueError with the values that nobody described."""
    documented = described(text)
    rows, missing = ["| value | default | meaning |", "|---|---|---|"], []
    for path, default in leaves(yaml.safe_load(text), documented):
        if path not in documented:
            missing.append(path)
            continue
        shown = json.dumps(default)
        shown = f"`{shown}`" if len(shown) <= _WIDEST else "see values.yaml"
        rows.append(f"| `{path}` | {shown} | {documented[path]} |")
    if missing:
        raise ValueError(f"without a comment that begins with `# --` in values.yaml: {', '.join(missing)}")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    readme = _CHART / "README.md"
    try:
        made = table((_CHART / "values.yaml").read_text())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    before = readme.read_text()
    head, _, rest = before.partition(_BEGIN)
    after = f"{head}{_BEGIN}\n{made}\n{_END}{rest.partition(_END)[2]}"
    if "--check" not in arguments:
        readme.write_text(after)
    elif after != before:
        print(f"{readme} is stale: run `python charts/document.py` and commit it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
