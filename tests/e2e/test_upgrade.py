"""From the last commit's chart to this one's while tasks fire, and away again: what users wrote stays.

It goes last: it ends with the product uninstalled.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chart.previous import previous_chart
from tests.e2e.kube import until
from tests.e2e.load import Load
from tests.e2e.product import NAMESPACE, RELEASE, ROOT, TUNED, Installation
from tests.e2e.timeline import Timeline, now_ms

WORK = "upgrade"


def upgrade(product: Installation, chart: Path) -> None:
    values = ",".join(f"election.{name}={value}" for name, value in TUNED.items())
    product.kube.helm(
        "upgrade", RELEASE, str(chart), "--namespace", NAMESPACE, "--set", values, "--wait", "--timeout", "180s",
        # Something of the pods must differ, or nothing would roll.
        "--set-string", f"podAnnotations.upgraded={now_ms()}",
    )  # fmt: skip


def test_an_upgrade_keeps_tasks_firing_and_an_uninstall_leaves_what_users_wrote(
    installed: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = previous_chart(tmp_path)
    if chart is None:
        pytest.skip("no commit before this one has a chart")
    kube = installed.kube
    upgrade(installed, chart)
    load = Load(kube, Timeline(installed.tail, WORK), WORK, installed.worker_image)
    load.start()
    began_ms = now_ms()
    upgrade(installed, ROOT / "charts" / "tickwheel")
    installed.wait_ready()
    upgraded_ms = now_ms()
    until("fires after it", lambda: load.timeline.first_fire_after(upgraded_ms), 60)
    pause = load.timeline.longest_pause_ms(began_ms, now_ms())
    faults = load.faults()
    with capsys.disabled():
        print(f"\n  upgraded from the last commit's chart: longest pause between fires {pause} ms")
    assert faults == []

    kube.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    assert len(kube.items("scheduledtasks.tickwheel.io", "-n", WORK)) == 25
    assert len(kube.items("workerpools.tickwheel.io", "-n", WORK)) == 1
    assert kube.items("deployments", "-n", NAMESPACE) == []
    kube.kubectl("delete", "namespace", WORK, "--wait=false")
