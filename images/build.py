"""Pack the images without Docker. `make image` and the end-to-end tests call it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from images.archive import write_archive
from images.base import base_layer
from images.errors import ImageError
from images.layers import Layer
from images.packages import code_layer, dependencies_layer
from images.recipe import IMAGES, ROOT, version

__all__ = ["BuiltImage", "build"]


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that was packed."""

    name: str
    reference: str
    """What a pod's `image` says."""
    tar: Path
    digest: str
    layers: tuple[Layer, ...]


def build(
    names: Iterable[str] = tuple(IMAGES), *, tag: str | None = None, output: Path | None = None
) -> dict[str, BuiltImage]:
    """Pack the named images and return them by name.

    `tag` is the checkout's version by default, `output` the checkout's `dist/images`. What did not change is not made
    again: nothing changed costs milliseconds, changed code seconds, and the first time a minute. Raises `ImageError`.
    """
    tag = tag or version()
    folder = output or ROOT / "dist" / "images"
    built: dict[str, BuiltImage] = {}
    for name in names:
        if name not in IMAGES:
            raise ImageError(f"there is no image {name!r}: the images are {', '.join(IMAGES)}")
        recipe = IMAGES[name]
        base = base_layer()
        layers = (base, dependencies_layer(recipe, base), code_layer(recipe, base))
        tar = folder / f"{name}-{tag}.tar"
        digest = write_archive(recipe, tag, layers, tar)
        built[name] = BuiltImage(name=name, reference=recipe.reference(tag), tar=tar, digest=digest, layers=layers)
    return built
