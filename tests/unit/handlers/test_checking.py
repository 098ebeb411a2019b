"""Parameters against the schemas of a handler: what is refused, in which words, and at which cost."""

from __future__ import annotations

import json

import pytest

from tickwheel_operator.handlers import checking
from tickwheel_operator.handlers.checking import Checkers
from tickwheel_operator.handlers.simplified import MOST_PARTS, UnusableSchema, simplified

SYNC = {
    "type": "object",
    "properties": {"shop": {"type": "string"}, "count": {"type": "integer", "minimum": 3}, "way": {"enum": ["n", "s"]}},
    "required": ["shop"],
    "additionalProperties": False,
}


def objection(*schemas, **parameters):
    sources = [json.dumps(schema).encode() for schema in schemas]
    refusal = Checkers().refusal("sync", sources, json.dumps(parameters).encode(), "spec.parameters")
    return "" if refusal is None else str(refusal)


def test_parameters_that_fit_are_taken():
    assert objection(SYNC, shop="a", count=3) == ""


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"shop": 1}, 'spec.parameters.shop: 1 is not of type "string"'),
        ({}, 'spec.parameters: "shop" is a required property'),
        ({"shop": "a", "count": 2}, "spec.parameters.count: 2 is less than the minimum of 3"),
        ({"shop": "a", "more": 1}, "spec.parameters: Additional properties are not allowed ('more' was unexpected)"),
        ({"shop": "a", "way": "x"}, 'spec.parameters.way: "x" is not one of'),
    ],
)
def test_the_words_name_the_field_what_is_wrong_what_is_allowed_and_an_example(parameters, said):
    told = objection(SYNC, **parameters)
    assert told.startswith(said)
    assert told.endswith(
        '. Handler sync takes: shop (string, required), count (integer), way ("n" or "s"); for example {"shop":"..."}'
    )


def test_the_path_leads_into_lists():
    schema = {"properties": {"rows": {"items": {"properties": {"id": {"type": "integer"}}}}}}
    assert objection(schema, rows=[{"id": 1}, {"id": "x"}]).startswith('spec.parameters.rows[1].id: "x" is not of')


def test_one_schema_that_takes_the_parameters_is_enough():
    other = {"properties": {"shop": {"type": "integer"}}}
    assert objection(SYNC, other, shop=1) == ""
    assert objection(SYNC, other, shop=None) != ""
    assert objection(shop=None) == "", "nobody knows"


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"type": "strin"},
        {"$ref": "https://elsewhere.example/schema"},
        {"$ref": "#/$defs/missing"},
        {"anyOf": {"type": "string"}},
        {"properties": {"shop": 1}},
        {"properties": {f"p{number}": {"type": "string"} for number in range(MOST_PARTS)}},
    ],
)
def test_a_schema_that_cannot_be_used_refuses_nothing(schema, caplog):
    assert objection(schema, shop=1) == ""
    assert "parameters are not checked" in caplog.text


def test_references_are_followed_and_those_into_themselves_are_loose():
    schema = {
        "properties": {"tree": {"$ref": "#/$defs/Tree"}},
        "$defs": {
            "Tree": {
                "properties": {"name": {"$ref": "#/$defs/Name"}, "left": {"$ref": "#/$defs/Tree"}},
                "required": ["name"],
            },
            "Name": {"type": "string"},
        },
    }
    assert objection(schema, tree={"name": "a", "left": {"name": "b"}}) == ""
    assert objection(schema, tree={"name": 1}) != ""
    assert objection(schema, tree={"name": "a", "left": {"name": 1}}) == "", "left to the handler"


def test_a_union_of_what_cannot_be_checked_in_full_refuses_nothing_that_it_takes():
    branch = {"properties": {"kind": {"const": "and"}, "of": {"$ref": "#/$defs/E"}}}
    schema = {"$ref": "#/$defs/E", "$defs": {"E": {"oneOf": [branch, {"properties": {"of": {"type": "integer"}}}]}}}
    # Either branch takes it once `of` is anything: as `oneOf` both would match.
    assert objection(schema, kind="and", of=1) == ""


def test_expressions_that_could_take_for_ever_are_left_out():
    schema = {"properties": {"shop": {"pattern": r"^(?=a)(a+)+$"}, "way": {"pattern": "^(a+)+$"}}}
    assert simplified(schema) == {"properties": {"shop": {}, "way": {"pattern": "^(a+)+$"}}}
    assert objection(schema, shop="a" * 5_000 + "b") == ""
    assert objection(schema, way="a" * 5_000 + "b") != ""


def test_a_schema_that_grows_by_its_references_is_refused():
    bomb = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(30)} | {"d30": {}}
    with pytest.raises(UnusableSchema, match="more than 2,000 parts"):
        simplified({"$ref": "#/$defs/d0", "$defs": bomb})


def test_a_reference_back_to_the_root_in_every_branch_ends():
    schema = {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}
    assert objection({"properties": {"x": {"items": schema}}}, x=[[[[[[[]]]]]]]) == ""


def test_parameters_whose_check_would_take_long_are_not_checked(monkeypatch):
    assert objection(SYNC, shop=1) != ""
    monkeypatch.setattr(checking, "MOST_WORK", 100)
    assert objection(SYNC, shop=1) == ""


def test_only_the_first_fault_of_large_parameters_is_looked_for(monkeypatch):
    assert objection(SYNC, shop=1, count=1).count("spec.parameters") == 2
    monkeypatch.setattr(checking, "_WORK_OF_ALL", 100)
    assert objection(SYNC, shop=1, count=1).count("spec.parameters") == 1
