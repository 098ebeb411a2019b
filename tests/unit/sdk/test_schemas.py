"""The JSON Schemas that a worker registers for its handlers."""

from __future__ import annotations

import dataclasses
import json
import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import jsonschema_rs
import pytest
from pydantic import BaseModel, Field
from pydantic_core import core_schema

from tickwheel._protocol import MAX_SCHEMA_BYTES, MAX_SCHEMAS_BYTES
from tickwheel._registry import Registry
from tickwheel._schemas import describe

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


class Item(BaseModel):
    sku: str = Field(pattern="^[A-Z]+$")
    price: Decimal = Decimal(1)


@dataclasses.dataclass
class Order:
    items: list[Item]
    parent: Order | None = None


class Login(BaseModel):
    password: str = "hunter2"


class Own:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return core_schema.no_info_plain_validator_function(lambda value: value)


def described(**functions):
    registry = Registry()
    for name, function in functions.items():
        registry.add(name, function)
    return describe(registry.handlers())


def schemas_of(function):
    schema = described(it=function).schemas["it"]
    return json.loads(bytes(schema.parameters)), json.loads(bytes(schema.result))


def test_a_handlers_annotations_become_the_schemas_of_its_parameters_and_result():
    def handler(
        ctx, shop: str, region: Literal["north", "south"] = "north", limit: int | None = None
    ) -> dict[str, int]:
        return {}

    assert schemas_of(handler) == (
        {
            "type": "object",
            "properties": {
                "shop": {"type": "string"},
                "region": {"enum": ["north", "south"], "type": "string"},
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
            "required": ["shop"],
            "additionalProperties": False,
        },
        {"type": "object", "additionalProperties": {"type": "integer"}},
    )


def test_what_is_not_annotated_is_left_open():
    def handler(ctx, anything, something: Any = None, **more):
        return None

    parameters, result = schemas_of(handler)
    assert parameters == {
        "type": "object",
        "properties": {"anything": {}, "something": {}},
        "required": ["anything"],
        "additionalProperties": True,
    }
    assert result == {}


def test_a_result_that_only_a_type_checker_can_read_is_left_open():
    def handler(ctx) -> Unknown: ...

    assert schemas_of(handler)[1] == {}


def test_a_type_without_a_schema_is_left_open_and_the_others_are_described():
    def handler(ctx, own: Own, count: int): ...

    assert schemas_of(handler)[0]["properties"] == {"own": {}, "count": {"type": "integer"}}


def test_models_share_their_definitions():
    def handler(ctx, order: Order, item: Item): ...

    parameters, _ = schemas_of(handler)
    assert set(parameters["$defs"]) == {"Item", "Order"}
    validator = jsonschema_rs.validator_for(parameters)
    item = {"sku": "A", "price": "2.5"}
    assert validator.is_valid({"order": {"items": [item], "parent": {"items": []}}, "item": item})
    assert not validator.is_valid({"order": {"items": [], "parent": {"items": [{"sku": "a"}]}}, "item": item})


def test_defaults_are_not_told_since_they_may_be_secrets():
    def handler(ctx, login: Login, token: str = "hunter2"): ...

    assert b"hunter2" not in bytes(described(it=handler).schemas["it"].parameters)


def test_equal_handlers_have_an_equal_hash_and_others_another():
    def one(ctx, shop: str): ...
    def same(ctx, shop: str): ...
    def other(ctx, shop: int): ...

    assert described(it=one).hash == described(it=same).hash
    assert len({described(it=one).hash, described(it=other).hash, described(that=one).hash}) == 3


def test_a_schema_that_is_too_large_is_left_out_with_a_warning(caplog):
    def handler(ctx, shop: Literal[tuple(f"shop-{n}" for n in range(2_000))]): ...  # type: ignore[valid-type]
    def small(ctx, shop: str): ...

    with caplog.at_level(logging.WARNING):
        schemas = described(large=handler, small=small).schemas
    assert bytes(schemas["large"].parameters) == b"{}"
    assert len(bytes(schemas["small"].parameters)) > 2
    assert f"handler large: the JSON Schema of its parameters or result has more than {MAX_SCHEMA_BYTES}" in caplog.text


def test_schemas_that_are_too_large_together_are_left_out_from_there_on(caplog):
    def handler(ctx, shop: Literal[tuple(f"shop-{n}" for n in range(1_000))]): ...  # type: ignore[valid-type]

    with caplog.at_level(logging.WARNING):
        schemas = described(**{f"h{n:02}": handler for n in range(20)}).schemas
    sizes = [len(schema.parameters) + len(schema.result) for schema in schemas.values()]
    assert sum(size for size in sizes if size > 4) <= MAX_SCHEMAS_BYTES
    assert sizes[0] > 4 and sizes[-1] == 4
    assert "handler h19: the JSON Schemas of all handlers have more than" in caplog.text


@pytest.mark.parametrize("function", [int, lambda ctx: 1])
def test_what_is_no_plain_function_is_described_too(function):
    if function is int:

        class Callable:
            def __call__(self, ctx, shop: str) -> int: ...

        function = Callable()
    assert schemas_of(function)[0]["type"] == "object"


async def test_a_worker_sends_its_schemas_only_when_the_operator_asks(operator, start):
    async def described_handler(ctx, shop: str) -> int:
        return 1

    operator.asks_for_schemas = True
    await start({"described": described_handler}, pull_wait=0.05)
    await operator.until(lambda: any(pull.schemas for pull in operator.pulls))
    operator.asks_for_schemas = False
    pulls = len(operator.pulls)
    await operator.until(lambda: len(operator.pulls) > pulls + 3)
    first, last = operator.pulls[0], operator.pulls[-1]
    sent = next(pull.schemas for pull in operator.pulls if pull.schemas)
    assert (first.schemas, last.schemas) == ({}, {})
    assert first.schemas_hash == last.schemas_hash != ""
    assert json.loads(bytes(sent["described"].parameters))["required"] == ["shop"]
