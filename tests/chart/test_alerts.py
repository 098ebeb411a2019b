"""The alerts, by Prometheus' own tool: their syntax, and that each rings when it should and not before."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.chart.rendering import only, render
from tests.unit.projection.test_metrics import exposition

from tickwheel_cluster.binaries import find_tool
from tickwheel_operator.projection.metric_names import METRICS

TESTS = Path(__file__).with_name("alerts.yaml")
DASHBOARD = Path(__file__).parents[2] / "charts" / "tickwheel" / "files" / "dashboard.json"
_SELECTED = re.compile(r"(tickwheel_[a-z_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
_OF_PROMETHEUS = {"job", "instance", "le", "pod", "service", "container"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The groups of the PrometheusRule, as a file of rules."""
    rule = only(render({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    path = tmp_path_factory.mktemp("alerts") / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    return path


def promtool(*arguments: str, cwd: Path, stdin: str = "") -> None:
    done = subprocess.run(
        [str(find_tool("promtool")), *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules(rules: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", rules.name, cwd=rules.parent)


def test_alerts_ring_when_they_should_and_not_before(rules: Path) -> None:
    (rules.parent / TESTS.name).write_text(TESTS.read_text())
    promtool("test", "rules", TESTS.name, cwd=rules.parent)


def test_every_alert_has_a_test_that_makes_it_ring(rules: Path) -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]}
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["promql_expr_test"]]
    rings = {sample["labels"] for case in cases for sample in case.get("exp_samples", ())}
    assert rings == {f'{{alertname="{alert}"}}' for alert in alerts}


def test_the_rule_for_a_prometheus_that_outlives_the_release_rings_when_nobody_leads(tmp_path: Path) -> None:
    runbook = (TESTS.parents[2] / "docs" / "runbook.md").read_text()
    [rule] = re.findall(r"^```yaml\n(groups:\n.*?)^```", runbook, re.DOTALL | re.MULTILINE)
    (tmp_path / "rules.yaml").write_text(rule)
    ringing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    alert = [{"labels": '{alertname="TickwheelNobodyServes"}', "value": 1}]
    series = 'tickwheel_leader{job="any", instance="a", partition="0"}'
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": "1x30 stale"}],
        "promql_expr_test": [
            {"expr": ringing, "eval_time": "29m"},
            {"expr": ringing, "eval_time": "38m"},
            {"expr": ringing, "eval_time": "45m", "exp_samples": alert},
        ],
    }
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", "tests.yaml", cwd=tmp_path)


def test_promtool_finds_nothing_wrong_with_what_the_operator_exposes(tmp_path: Path) -> None:
    promtool("check", "metrics", cwd=tmp_path, stdin=exposition())


def test_alerts_and_dashboard_name_only_metrics_and_labels_that_there_are(rules: Path) -> None:
    labels = {metric.shown: set(metric.labels) for metric in METRICS}
    labels |= {f"{m.shown}{part}": set(m.labels) for m in METRICS for part in ("_bucket", "_sum", "_count")}
    expressions = [*_of_rules(rules), *_of_dashboard(json.loads(DASHBOARD.read_text()))]
    assert len(expressions) > 30
    for expression in expressions:
        named = _SELECTED.findall(expression)
        for name, matchers in named:
            assert name in labels, expression
            assert set(_MATCHER.findall(matchers)) <= labels[name] | _OF_PROMETHEUS, expression
        known = set().union(*(labels[name] for name, _ in named), _OF_PROMETHEUS, {"partition"})
        for grouping in _GROUPING.findall(expression):
            assert {label.strip() for label in grouping.split(",")} <= known, expression


def _of_rules(rules: Path) -> Iterator[str]:
    for group in yaml.safe_load(rules.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def _of_dashboard(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(expression := node.get("expr"), str):
            yield expression
        for value in node.values():
            yield from _of_dashboard(value)
    elif isinstance(node, list):
        for value in node:
            yield from _of_dashboard(value)
