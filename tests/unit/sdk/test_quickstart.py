"""The quickstart's handlers do what its README and manifests say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tickwheel import __main__ as command
from tickwheel import registered
from tickwheel._registry import registry

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"


@pytest.fixture
def handlers():
    command.load(str(QUICKSTART / "handlers.py"))
    assert set(registered()) >= {"hello", "report", "flaky", "resize-images"}
    return {name: handler.function for name, handler in registry.handlers().items()}


def tasks() -> list[dict]:
    documents = [document for file in QUICKSTART.glob("*.yaml") for document in yaml.safe_load_all(file.read_text())]
    return [document["spec"] for document in documents if document and document["kind"] == "ScheduledTask"]


async def test_each_task_of_the_quickstart_succeeds_in_the_end(operator, start, handlers):
    await start(handlers)
    leased = {operator.lease(spec["handler"], spec.get("parameters"), attempt=2): spec["handler"] for spec in tasks()}
    assert set(leased.values()) >= {"hello", "report", "flaky", "resize-images"}
    await operator.until(lambda: not operator.open)
    assert operator.failed == {}


async def test_the_flaky_one_fails_on_its_first_attempt(operator, start, handlers):
    await start(handlers)
    token = operator.lease("flaky", attempt=1)
    await operator.until(lambda: not operator.open)
    assert operator.failed[token].type == "ConnectionError"


async def test_a_wrong_parameter_of_a_typed_handler_is_named(operator, start, handlers):
    await start(handlers)
    token = operator.lease("resize-images", {"images": ["a.png"], "width": 0, "height": 480})
    await operator.until(lambda: not operator.open)
    assert "parameter 'width' of handler resize-images" in operator.failed[token].message
