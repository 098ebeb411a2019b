"""The patterns and lists of the admission policies, against the parsers that the operator asks."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tickwheel_operator.admission.policies import documents, main
from tickwheel_operator.admission.values import CRON_NEVER, MACROS, item_pattern, time_zones
from tickwheel_operator.api import KINDS
from tickwheel_operator.api.supported import gaps
from tickwheel_operator.engine.cron import CronError, parse, zone_named
from tickwheel_operator.engine.cron.fields import FIELDS

_TEXT = st.text(alphabet="0123456789*?,-/LWHJANFEBSUMOI#()", max_size=8)
_NUMBER = st.integers(0, 62).map(str) | st.sampled_from(["JAN", "FEB", "SUN", "FRI", "XYZ", "007", "0"])
_ITEM = st.one_of(
    _NUMBER,
    st.builds("{}-{}".format, _NUMBER, _NUMBER),
    st.builds("{}/{}".format, st.sampled_from(["*", "?", "H", "5", "1-5", "H(1-4)"]), _NUMBER),
    st.builds("{}{}".format, _NUMBER, st.sampled_from(["L", "W", "#2", "#6", "#0"])),
    st.builds("{}{}".format, st.sampled_from(["L-", "L", "LW", "W", "H(0-9)", "H(3-70)"]), st.just("") | _NUMBER),
    _TEXT,
).filter(bool)


@given(st.integers(0, 5), _ITEM)
@example(5, "7-7")
@example(3, "L-30")
@example(3, "L-31")
@example(5, "L")
def test_a_cron_item_is_refused_by_the_policy_when_it_is_refused_by_the_operator(field: int, item: str) -> None:
    words = ["*"] * 6
    words[field] = item
    try:
        parse(" ".join(words))
        readable = True
    except CronError:
        readable = False
    # The policy looks at the items of a list one by one, after it has split the expression into words.
    allowed = all(re.search(item_pattern(FIELDS[field]), each, re.ASCII) for each in item.split(","))
    assert allowed == readable


@given(
    st.lists(st.sampled_from(["1", "29", "30", "031", "31", "*", "L"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["2", "FEB", "02", "4", "11", "APR", "1", "*"]), min_size=1, max_size=3),
    st.sampled_from(["*", "?", "MON"]),
)
@example(["30"], ["2"], "*")
def test_what_the_policy_says_never_fires_never_fires(days: list[str], months: list[str], weekday: str) -> None:
    expression = f"0 0 {','.join(days)} {','.join(months)} {weekday}"
    if re.search(CRON_NEVER, expression, re.ASCII):
        assert parse(expression).never_fires(zone_named("UTC"))


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 0 31 2,4,6,9,11 ?", "0 0 31 APR *", "0 0 30,31 FEB ?"])
def test_the_policy_knows_the_days_that_no_month_has(expression: str) -> None:
    assert re.search(CRON_NEVER, expression, re.ASCII)


def test_the_policy_knows_the_macros_of_the_operator() -> None:
    with pytest.raises(CronError) as caught:
        parse("@no")
    assert f"allowed: {', '.join(MACROS).lower()};" in str(caught.value)
    for macro in MACROS:
        parse(macro)


def test_the_policy_knows_time_zones_and_only_such_as_the_operator_knows() -> None:
    assert {"Asia/Shanghai", "Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires"} < set(time_zones())
    for zone in time_zones():
        zone_named(zone)


def test_every_field_that_is_not_built_yet_is_in_the_policy_of_its_kind() -> None:
    policies = [d for d in documents() if d["kind"] == "ValidatingAdmissionPolicy"]
    texts = {d["metadata"]["name"]: "".join(v["expression"] for v in d["spec"]["variables"]) for d in policies}
    for kind in KINDS:
        for gap in gaps(kind.kind_name()):
            policy = texts[f"{kind.presentation.plural}.tickwheel.io"]
            assert f"{gap.path}: " in policy if gap.path else f"{kind.kind_name()} is not supported" in policy


def test_the_chart_has_the_policies_that_the_models_make() -> None:
    assert main(["--check"]) == 0
