"""Files that a person edits while they are watched.

Editors replace files in several steps (truncate and write, or rename away and write anew). So a change counts only
when two looks in a row saw the same: nobody is told of an empty or vanished file that lasts a moment.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

__all__ = ["Watched", "listed"]

_Stamps = dict[Path, tuple[int, int]]


def listed(directory: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The folder's files of these suffixes, sorted; not those that editors hide beside them (`.#x.yaml`)."""
    for path in sorted(directory.iterdir()):
        if path.suffix in suffixes and not path.name.startswith((".", "#")):
            yield path


class Watched:
    """Tells when the files that `listing` gives have come, gone or changed since they were last taken."""

    def __init__(self, listing: Callable[[], Iterable[Path]]) -> None:
        self._listing = listing
        self._more: set[Path] = set()
        self._taken: _Stamps = {}
        self._seen: _Stamps = {}

    def changed(self) -> bool:
        """Whether there is a change, and it has settled. Call it at a regular pace, under a second."""
        now = self._look()
        settled = now == self._seen
        self._seen = now
        return settled and now != self._taken

    def take(self) -> list[Path]:
        """The files as they are now, which count as read."""
        self._taken = self._seen = self._look()
        return [path for path in self._taken if path not in self._more]

    def also(self, paths: Iterable[Path]) -> None:
        """Watch these too from now on; `take` does not return them."""
        for path in paths:
            if path not in self._taken:
                self._more.add(path)
                if (stamp := _stamp(path)) is not None:
                    self._taken[path] = stamp

    def _look(self) -> _Stamps:
        stamps = {path: _stamp(path) for path in (*self._listing(), *self._more)}
        return {path: stamp for path, stamp in stamps.items() if stamp is not None}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
