"""What `helm template` makes of the chart, as objects. Tests of other folders install it too: it is what ships."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tickwheel_cluster.binaries import find_tool

__all__ = ["CHART", "NAMESPACE", "RELEASE", "Refused", "find", "helm", "only", "render"]

CHART = Path(__file__).resolve().parents[2] / "charts" / "tickwheel"
RELEASE = "tickwheel"
NAMESPACE = "tickwheel-system"

Manifest = dict[str, Any]


class Refused(AssertionError):
    """Helm did not do it; the message is what it said."""


def helm(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """What it prints. Raises `Refused`."""
    done = subprocess.run(
        [str(find_tool("helm")), *arguments], input=stdin, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode != 0:
        raise Refused(f"helm {arguments[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def render(values: Manifest | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Manifest]:
    """All objects, the hooks of `helm test` too."""
    return copy.deepcopy(_rendered(json.dumps(values or {}), release, namespace))


@functools.cache
def _rendered(values: str, release: str, namespace: str) -> list[Manifest]:
    text = helm("template", release, str(CHART), "-n", namespace, "-f", "-", stdin=values)
    # libyaml: half a megabyte takes seconds without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, Loader=loader) if document]


def find(objects: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    """Those of the kind, and of the name if one is given."""
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


def only(objects: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one object of the kind."""
    found = find(objects, kind, name)
    assert len(found) == 1, f"{len(found)} of kind {kind}, name {name}"
    return found[0]
