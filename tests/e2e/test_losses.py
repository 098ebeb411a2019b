"""Losses under load, on real nodes: pods that are killed, drained and cut off, and rolling updates of everything.

The ledger is the witness (`timeline`): no instant may be lost or fired twice, and every run ends. How long each loss
took to mend is printed, not asserted: the machines are shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.kube import until
from tests.e2e.load import Load
from tests.e2e.product import NEXT, OPERATOR, Installation
from tests.e2e.timeline import Lease, Timeline, now_ms

NAMESPACE = "losses"


@pytest.fixture(scope="module")
def load(installed: Installation) -> Iterator[Load]:
    load = Load(installed.kube, Timeline(installed.tail, NAMESPACE), NAMESPACE, installed.worker_image)
    try:
        load.start()
        yield load
    finally:
        installed.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="", flush=True)

    return say


def redelivery(load: Load, lost: list[Lease], lost_ms: int) -> str:
    """How long after the loss the lost attempts were given to other workers; empty: all had ended before it."""
    # A leader that stands still with its machine may lose its term, and the next one gives a whole lease again.
    until("the lost work to be delivered again", lambda: None not in load.timeline.redelivered(lost), 120, 0.1)
    again = [lease.at_ms - lost_ms for lease in load.timeline.redelivered(lost) if lease is not None]
    return f"{len(again)} attempts redelivered {min(again)}-{max(again)} ms after it" if again else ""


def lose_a_busy_worker(load: Load, strike: Callable[[str], None]) -> str:
    """Strike a worker that runs something; when that was given to others. A machine that stands still between the look
    and the blow may leave nothing to lose: then another one is struck."""
    for _ in range(3):
        worker, held = load.busy_worker()
        lost_ms = now_ms()
        strike(worker)
        if told := redelivery(load, held, lost_ms):
            return told
    raise AssertionError("all attempts had ended when they were to be lost: the test shows nothing")


def test_a_deleted_worker_pod_gives_its_work_back_or_ends_it(load: Load, tell: Callable[[str], None]) -> None:
    worker, held = load.busy_worker()
    load.kube.kubectl("delete", "pod", worker, "-n", NAMESPACE, "--wait=false")
    until("its work to end", lambda: not load.timeline.open_on(worker), 60)
    book = load.timeline.read()
    by_itself = sum(book.runs[lease.run].ended_by == lease.token for lease in held)
    tell(f"worker pod deleted: {by_itself} of {len(held)} attempts ended on it while it drained")
    assert by_itself == len(held), "it had the time to finish what it ran"
    assert load.faults() == []


def test_work_of_a_killed_worker_is_delivered_again(load: Load, installed: Installation, tell) -> None:
    again = lose_a_busy_worker(load, lambda worker: installed.kill(NAMESPACE, worker, "worker"))
    tell(f"worker container killed (SIGKILL): {again}")
    until("three workers again", lambda: len(load.workers()) == 3, 60)
    assert load.faults() == []


def test_work_of_a_pod_that_is_deleted_by_force_is_delivered_again(load: Load, tell) -> None:
    def delete(worker: str) -> None:
        load.kube.kubectl("delete", "pod", worker, "-n", NAMESPACE, "--force", "--grace-period=0", "--wait=false")

    tell(f"worker pod deleted by force: {lose_a_busy_worker(load, delete)}")
    until("three workers again", lambda: len(load.workers()) == 3, 60)
    assert load.faults() == []


def test_a_killed_leader_is_replaced_and_no_instant_is_lost(load: Load, installed: Installation, tell) -> None:
    leader = installed.leader()
    epoch = load.timeline.read().epochs[-1][0]
    lost_ms = now_ms()
    installed.kill(installed.namespace, leader, "operator")
    fired = until("a new leader to fire", lambda: load.timeline.first_fire_after(lost_ms, above_epoch=epoch), 60, 0.05)
    pause = load.timeline.longest_pause_ms(lost_ms - 1_500, now_ms())
    tell(f"leader killed (SIGKILL): next fire {fired - lost_ms} ms after it; longest pause between fires {pause} ms")
    installed.wait_ready()
    assert load.faults() == []


def test_a_deleted_leader_pod_hands_over(load: Load, installed: Installation, tell) -> None:
    leader = installed.leader()
    epoch = load.timeline.read().epochs[-1][0]
    lost_ms = now_ms()
    load.kube.kubectl("delete", "pod", leader, "-n", installed.namespace, "--wait=false")
    fired = until("a new leader to fire", lambda: load.timeline.first_fire_after(lost_ms, above_epoch=epoch), 60, 0.05)
    pause = load.timeline.longest_pause_ms(lost_ms - 1_500, now_ms())
    tell(f"leader pod deleted: next leader's first fire {fired - lost_ms} ms after it; longest pause {pause} ms")
    installed.wait_ready()
    assert load.faults() == []


def test_a_rolling_update_of_the_operator_to_a_new_image_loses_no_instant(
    load: Load, installed: Installation, tell
) -> None:
    began_ms = now_ms()
    installed.roll(f"image.tag={NEXT}")
    containers = installed.kube.get("deployment", installed.deployment, "-n", installed.namespace)["spec"]["template"]
    assert containers["spec"]["containers"][0]["image"].endswith(f":{NEXT}")
    rolled_ms = now_ms()
    until("fires after it", lambda: load.timeline.first_fire_after(rolled_ms), 60)
    pause = load.timeline.longest_pause_ms(began_ms, now_ms())
    tell(f"operator rolled to another image: longest pause between fires {pause} ms")
    assert load.faults() == []


def test_a_rolling_update_of_the_pool_to_a_new_image_loses_no_work(load: Load, installed: Installation, tell) -> None:
    before = set(load.workers())
    failures = len(load.timeline.failures())
    image = installed.next_worker_image
    path = "/spec/template/spec/containers/0/image"
    patch = f'[{{"op": "replace", "path": "{path}", "value": "{image}"}}]'
    load.kube.kubectl("patch", "workerpools.tickwheel.io", "load", "-n", NAMESPACE, "--type=json", "-p", patch)
    until(
        "all workers to be new",
        lambda: len(set(load.workers()) - before) == 3 and not set(load.workers()) & before,
        150,
    )
    time.sleep(2)
    lost = load.timeline.failures()[failures:]
    tell(f"pool rolled to another image: {len(lost)} attempts failed or were lost")
    assert lost == []
    assert load.faults() == []


def test_a_drained_node_loses_no_work(load: Load, installed: Installation, tell) -> None:
    node = load.node_of(load.busy_worker()[0])
    failures = len(load.timeline.failures())
    began_ms = now_ms()
    try:
        load.kube.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s",
            "--pod-selector=app.kubernetes.io/part-of!=cluster", timeout=150,
        )  # fmt: skip
        pause = load.timeline.longest_pause_ms(began_ms, now_ms())
    finally:
        load.kube.kubectl("uncordon", node)
    lost = load.timeline.failures()[failures:]
    tell(f"node {node} drained: {len(lost)} attempts lost; longest pause between fires {pause} ms")
    assert lost == []
    installed.wait_ready()
    until("three workers again", lambda: len(load.workers()) == 3, 90)
    assert load.faults() == []


def test_work_of_a_node_that_is_cut_off_goes_to_the_other(load: Load, installed: Installation, tell) -> None:
    node = installed.cluster.nodes[-1]  # not the one of the control plane
    # After a drain they may all be on one node, and pods do not move by themselves.
    installed.spread(installed.namespace, OPERATOR, 2)
    installed.spread(NAMESPACE, "tickwheel.io/pool=load", 3)
    on_it = [worker for worker in load.workers() if load.node_of(worker) == node]
    held = until("it to run something", lambda: load.slow_on(on_it[0]), 60, 0.1)
    lost_ms = now_ms()
    installed.cluster.cut(node)
    try:
        told = redelivery(load, held, lost_ms)
        assert told, f"all {len(held)} attempts had ended when they were to be lost: the test shows nothing"
        tell(f"node {node} cut off: {told}")
        pause = load.timeline.longest_pause_ms(lost_ms, now_ms())
    finally:
        installed.cluster.heal(node)
    # Each new leader gives what it finds open a whole lease, since it cannot know when that was renewed.
    terms = sum(at_ms > lost_ms for _, at_ms, _ in load.timeline.read().epochs)
    tell(f"meanwhile {terms} new terms, longest pause between fires: {pause} ms")
    until("both nodes to be ready", installed.nodes_ready, 90)
    installed.wait_ready()
    healed_ms = now_ms()
    until("work to go on", lambda: load.timeline.first_fire_after(healed_ms), 60)
    assert load.faults() == []
