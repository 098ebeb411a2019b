"""Every table over facts has a line for every kind: one that is forgotten fails here, not as a torn checkpoint."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable

import pytest
from tests.simulation.engine_fold import Fold
from tests.simulation.record import Record

from tickwheel_operator.engine.model.snapshot import Snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger import splitting
from tickwheel_operator.ledger.facts import Fact

_KINDS = set(typing.get_args(Fact))


def test_the_fold_and_the_roles_have_every_kind_of_fact() -> None:
    assert set(State()._handlers) == _KINDS
    assert set(splitting._ROLES) == _KINDS


@pytest.mark.parametrize("table", [Snapshot.before, splitting._halves, Record._fact, Fold.fold])
def test_a_match_over_facts_names_every_kind(table: Callable[..., object]) -> None:
    named = set(re.findall(r"\bf\.([A-Z]\w+)", inspect.getsource(table)))
    assert {kind.__name__ for kind in _KINDS} <= named


def test_tags_are_given_once_and_none_is_left_out() -> None:
    tags = sorted(kind.__struct_config__.tag for kind in _KINDS)
    assert tags == list(range(1, len(_KINDS) + 1))
