"""The `@task` decorator, and a run's parameters becoming arguments."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel, Field

from tickwheel import Context, HandlerError, ParameterError, task
from tickwheel._registry import Handler, Registry


class Colour(enum.Enum):
    RED = "red"


class Shop(BaseModel):
    name: str
    floor: int = 0


@dataclass
class Point:
    x: int
    y: int


def arguments(function: Any, **given: Any) -> dict[str, Any]:
    return Handler("h", function).arguments(msgspec.Raw(msgspec.json.encode(given)))


def test_a_handler_without_parameters_gets_none():
    async def handler(ctx): ...

    assert Handler("h", handler).bare
    assert arguments(handler) == {}


def test_annotated_parameters_become_their_types():
    def handler(
        ctx: Context,
        day: dt.date,
        at: dt.datetime,
        key: uuid.UUID,
        colour: Colour,
        shop: Shop,
        point: Point,
        tags: set[str],
        share: Annotated[float, Field(le=1)],
    ): ...

    key = uuid.uuid4()
    made = arguments(
        handler,
        day="2026-02-28",
        at="2026-02-28T10:00:00Z",
        key=str(key),
        colour="red",
        shop={"name": "a"},
        point={"x": 1, "y": 2},
        tags=["a", "a"],
        share=1,
    )
    assert made == {
        "day": dt.date(2026, 2, 28),
        "at": dt.datetime(2026, 2, 28, 10, tzinfo=dt.UTC),
        "key": key,
        "colour": Colour.RED,
        "shop": Shop(name="a"),
        "point": Point(1, 2),
        "tags": {"a"},
        "share": 1.0,
    }


def test_parameters_without_annotation_come_as_they_are():
    def handler(ctx, a, b=2): ...

    assert arguments(handler, a=[1, {"x": None}]) == {"a": [1, {"x": None}]}


def test_a_wrong_parameter_is_named_with_its_place_and_value():
    def handler(ctx, shops: list[Shop]): ...

    with pytest.raises(ParameterError, match=r"parameter 'shops' of handler h is wrong.*\[1\]\['floor'\].*'x'"):
        arguments(handler, shops=[{"name": "a"}, {"name": "b", "floor": "x"}])


def test_a_constraint_holds_for_plain_types_too():
    def handler(ctx, share: Annotated[int, Field(le=1)]): ...

    with pytest.raises(ParameterError, match="less than or equal to 1"):
        arguments(handler, share=5)


def test_a_missing_parameter_is_named():
    def handler(ctx, shop: str, floor: int = 0): ...

    with pytest.raises(ParameterError, match=r"handler h needs the parameter 'shop'.*given were 'floor'"):
        arguments(handler, floor=1)


def test_a_parameter_that_the_handler_does_not_have_is_named():
    def handler(ctx, shop: str): ...

    with pytest.raises(ParameterError, match="handler h has no parameter 'shp'; it has 'shop'"):
        arguments(handler, shp="a")


def test_a_handler_with_keywords_takes_what_comes():
    def handler(ctx, shop: str, **rest): ...

    assert arguments(handler, shop="a", floor=1) == {"shop": "a", "floor": 1}


def test_parameters_must_be_an_object():
    def handler(ctx): ...

    with pytest.raises(ParameterError, match="must be a JSON object"):
        Handler("h", handler).arguments(msgspec.Raw(b"[1]"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "context as its first argument"),
        (lambda *args: None, "context as its first argument"),
        (lambda ctx, *args: None, "parameter 'args' is positional"),
        (lambda ctx: (yield), "is a generator"),
    ],
)
def test_a_function_that_cannot_be_a_handler_is_refused(function, message):
    with pytest.raises(HandlerError, match=message):
        Handler("h", function)


def test_an_annotation_that_cannot_be_found_is_named():
    def handler(ctx, shop: Shopp): ...  # noqa: F821

    with pytest.raises(HandlerError, match="name 'Shopp' is not defined"):
        Handler("h", handler)


def test_the_types_of_context_and_result_may_be_known_to_the_type_checker_only():
    def handler(ctx: Unknown, shop: str) -> Unknown: ...  # noqa: F821

    assert arguments(handler, shop="a") == {"shop": "a"}


def test_an_annotation_that_pydantic_cannot_check_is_named():
    class Odd: ...

    def handler(ctx, odd): ...

    handler.__annotations__["odd"] = Odd
    with pytest.raises(HandlerError, match="cannot validate parameter 'odd'"):
        Handler("h", handler)


def test_wrapped_partial_and_callable_objects_are_handlers():
    async def handler(ctx, shop: str): ...

    @functools.wraps(handler)
    async def wrapper(*args, **kwargs): ...

    class Callable:
        async def __call__(self, ctx, shop: int): ...

    assert Handler("h", wrapper).asynchronous
    assert Handler("h", functools.partial(handler, shop="a")).asynchronous
    assert Handler("h", Callable()).asynchronous
    with pytest.raises(ParameterError):
        Handler("h", Callable()).arguments(msgspec.Raw(b'{"shop": "no number"}'))


def test_two_functions_cannot_share_a_name():
    registry = Registry()

    def one(ctx): ...

    def two(ctx): ...

    registry.add("a", one)
    registry.add("a", one)
    with pytest.raises(HandlerError, match=r"two handlers have the name 'a'.*one.*two"):
        registry.add("a", two)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 129, None])
def test_a_name_must_be_one(name):
    with pytest.raises(HandlerError, match="letters, digits"):
        Registry().add(name, lambda ctx: None)


def test_a_decorator_without_name_is_told_how_to_write_it():
    with pytest.raises(HandlerError, match=r"@task\('shop-sync'\)"):

        @task
        def handler(ctx): ...
