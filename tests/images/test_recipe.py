"""The Dockerfiles and the packed images say the same, and the locks are of one resolution."""

import json
import re

import pytest
from images.recipe import IMAGES, ROOT, USER, Recipe


def _instruction(recipe: Recipe, name: str) -> str:
    """What the last stage of the recipe's Dockerfile says after `name`."""
    text = (ROOT / "images" / recipe.name / "Dockerfile").read_text().replace("\\\n", " ").split("\nFROM ")[-1]
    return " ".join(re.findall(rf"^{name} +(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("recipe", IMAGES.values(), ids=list(IMAGES))
def test_the_dockerfile_starts_the_same_process_as_the_packed_image(recipe: Recipe) -> None:
    assert tuple(json.loads(_instruction(recipe, "ENTRYPOINT"))) == recipe.entrypoint
    assert tuple(json.loads(_instruction(recipe, "CMD") or "[]")) == recipe.command
    assert _instruction(recipe, "USER") == f"{USER}:{USER}"
    assert _instruction(recipe, "WORKDIR") == recipe.workdir
    told = dict(part.split("=") for part in _instruction(recipe, "ENV").split())
    assert told == {name: value for name, value in recipe.environment.items() if name != "PATH"}
    assert set(re.findall(r"org\.[a-z.]+", _instruction(recipe, "LABEL"))) == set(recipe.labels("1"))


@pytest.mark.parametrize("recipe", IMAGES.values(), ids=list(IMAGES))
def test_an_image_gets_the_versions_that_were_tested(recipe: Recipe) -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

    runtime, tested = pins(recipe.lock), pins("requirements.lock")
    # uvloop is an extra of the worker's, and the operator's own: both are in the one resolution.
    assert runtime
    assert runtime < tested
    assert not {pin for pin in runtime if pin.startswith(("pytest", "mypy", "ruff"))}
