"""The alerts, by Prometheus' own tool: their syntax, and that each rings when it should and not before."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.chart.rendering import only, render

from tickwheel_cluster.binaries import find_tool

TESTS = Path(__file__).with_name("alerts.yaml")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The groups of the PrometheusRule, as a file of rules."""
    rule = only(render({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    path = tmp_path_factory.mktemp("alerts") / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    return path


def promtool(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [str(find_tool("promtool")), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
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
