"""What the operator is told, and what it refuses before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.runtime.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_duration_ms", 15_500),
        ("lease_duration_ms", 10_000),
        ("retry_period_ms", 0),
        ("commit_interval_ms", 0),
        ("max_backlog", 0),
        ("checkpoint_segments", 0),
        ("gateway_port", 65_536),
        ("metrics_port", 8443),
        ("status_writes_per_second", 0.0),
        ("status_writes_per_second", float("nan")),
        ("attempt_lease_ms", 999),
        ("ledger_max_bytes", 1024 * 1024),
    ],
)
def test_a_setting_that_cannot_work_is_one_sentence_with_its_name(name: str, value: Any) -> None:
    [fault] = Settings(**{name: value}).faults()
    assert name in fault
    assert str(value) in fault


def test_free_ports_may_be_drawn_for_both() -> None:
    assert Settings(gateway_port=0, metrics_port=0).faults() == []
