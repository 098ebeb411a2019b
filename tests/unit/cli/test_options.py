"""What several commands take, read in one way."""

from __future__ import annotations

import click
import pytest

from tickwheel_operator.cli.options import DURATION


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("5m", 300), ("1.5h", 5400), ("500ms", 0.5), ("0s", 0)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["60", "", "s", "5 m", "-5s", "1e3s", "5sm", "five m", "1..5s", "٣s"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write for example 500ms, 60s, 5m or 1h"):
        DURATION.convert(text, None, None)
