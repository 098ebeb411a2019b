"""What each image is: its layers' sources and how its process starts. The Dockerfiles say the same, as a test
checks.

`build` reads it. Everything here is the same for both ways of making an image, except what Debian's packages and the
`python` image differ in (docs/images.md).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IMAGES", "REPOSITORY", "ROOT", "USER", "Recipe", "version"]

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "tickwheel.io"
USER = 65532
"""The user and group of every process, as a number: Kubernetes checks `runAsNonRoot` without reading /etc/passwd."""

_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - the one folder that is writable under a read-only root, an emptyDir
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",  # the root is read-only and what is shipped is compiled
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image."""

    name: str
    title: str
    lock: str
    """The file of its dependencies, relative to the checkout."""
    projects: tuple[str, ...]
    """The folders of our own distributions in it, relative to the checkout."""
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=lambda: dict(_ENVIRONMENT))

    def reference(self, tag: str) -> str:
        """Its name in a pod's `image`."""
        return f"{REPOSITORY}/{self.name}:{tag}"

    def labels(self, tag: str) -> dict[str, str]:
        """The standard annotations, as labels of the image."""
        return {
            "org.opencontainers.image.title": f"tickwheel-{self.name}",
            "org.opencontainers.image.description": self.title,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.version": tag,
        }


IMAGES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="operator",
            title="The Tickwheel operator",
            lock="requirements-runtime.lock",
            projects=(".", "worker-sdk"),
            entrypoint=("tickwheel-operator",),
        ),
        Recipe(
            name="worker",
            title="A Tickwheel worker: give it handlers at /handlers, or build from it",
            lock="requirements-worker.lock",
            projects=("worker-sdk",),
            entrypoint=("python3", "-m", "tickwheel"),
            command=("/handlers/handlers.py",),
            workdir="/handlers",
        ),
    )
}


def version() -> str:
    """The version of this checkout, which is the images' tag unless another is asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(project["project"]["version"])
