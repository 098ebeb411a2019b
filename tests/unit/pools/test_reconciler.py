"""When the reconciler writes, when it does not, and what it says of what is in the way."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.pools.builders import NAMESPACE, a_pool, worker
from tests.unit.pools.memory_cluster import MemoryCluster, refused

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.kube.errors import ApiUnavailable
from tickwheel_operator.pools.deployments import Deployments, PoolDeployment
from tickwheel_operator.pools.reconciler import PoolConfig, PoolReconciler

KEY = (NAMESPACE, "shop")
NAME = (NAMESPACE, "shop-workers")


class Scene:
    """A reconciler, its cluster and the pools that exist."""

    def __init__(self, **config: Any) -> None:
        self.cluster = MemoryCluster()
        self.deployments = Deployments()
        self.pools: dict[tuple[str, str], WorkerPool | None] = {}
        self.desired: int | None = None
        self.bundle = ""
        self.removed: list[tuple[int, int]] = []
        """Calls of the scale-down hook: how many go, and how many there were then."""
        self.hook_error: Exception | None = None
        self.follow_in_the_hook = False
        self.reconciler = PoolReconciler(
            self.cluster,
            self.deployments,
            PoolConfig(endpoint="http://gateway", **config),
            pool=lambda namespace, name: self.pools.get((namespace, name)),
            pools=lambda: self.pools.keys(),
            ca_bundle=lambda: self.bundle,
            desired_replicas=lambda namespace, name: self.desired,
            before_scale_down=self._before_scale_down,
        )

    async def _before_scale_down(self, namespace: str, name: str, pods: int) -> None:
        self.removed.append((pods, self.live["spec"]["replicas"]))
        if self.follow_in_the_hook:
            self.reconciler.follow()
        if self.hook_error is not None:
            raise self.hook_error

    def put(self, pool: WorkerPool | None) -> None:
        """The watch tells of the pool; None: it is invalid."""
        self.pools[KEY] = pool
        self.reconciler.changed(*KEY)

    @property
    def live(self) -> dict[str, Any]:
        return self.cluster.stored[NAME]

    def told(self) -> PoolDeployment:
        told = self.deployments.get(*KEY)
        assert told is not None
        return told

    def watch_tells(self) -> None:
        """Of the Deployment as it is now."""
        if NAME in self.cluster.stored:
            self.deployments.seen(self.deployments.read(self.live))

    def somebody_changes_it(self) -> None:
        self.live["metadata"]["managedFields"][0]["fieldsV1"] = {"f:spec": {"f:less": {}}}
        self.watch_tells()

    def status(self, **status: Any) -> None:
        self.live["status"] = {"observedGeneration": self.live["metadata"]["generation"], **status}
        self.watch_tells()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Scene]]:
    running: list[asyncio.Task[None]] = []

    def begin(*, leads: bool = True, **config: Any) -> Scene:
        scene = Scene(**config)
        running.append(asyncio.create_task(scene.reconciler.run()))
        if leads:
            scene.reconciler.lead()
        return scene

    yield begin
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def settled() -> None:
    """Long enough for whatever is due at once."""
    await asyncio.sleep(0.05)


Start = Callable[..., Scene]


# --- when it writes ---


async def test_a_deployment_that_vanished_while_the_watch_was_broken_is_made_again(start: Start) -> None:
    scene = start(resync_s=0.1)
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    del scene.cluster.stored[NAME]
    await until(lambda: NAME in scene.cluster.stored)


async def test_a_late_write_of_the_leader_before_is_set_right(start: Start) -> None:
    scene = start()
    scene.put(a_pool(worker(image="shop:2")))
    await until(lambda: NAME in scene.cluster.stored)
    late = copy.deepcopy(scene.live)
    late["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:1"
    await scene.cluster.apply(late)
    scene.watch_tells()
    await until(lambda: scene.live["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2")


async def test_a_term_that_ends_while_a_scale_down_is_prepared_writes_nothing_more(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=5))
    await until(lambda: NAME in scene.cluster.stored)
    scene.follow_in_the_hook = True
    scene.put(a_pool(replicas=1))
    await until(lambda: scene.removed)
    await settled()
    assert scene.live["spec"]["replicas"] == 5


async def test_pods_that_stay_as_they_are_learn_of_a_new_authority_all_the_same(start: Start) -> None:
    scene = start()
    scene.bundle = "OLD"
    scene.put(a_pool())
    await until(lambda: scene.cluster.authorities == {NAMESPACE: "OLD"})
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(None)
    scene.bundle = "OLD NEW"
    scene.reconciler.ca_changed()
    await until(lambda: scene.cluster.authorities == {NAMESPACE: "OLD NEW"})


async def test_a_pool_is_applied_once_however_often_it_is_told_of(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=2))
    await until(lambda: NAME in scene.cluster.stored)
    for _ in range(5):
        scene.put(a_pool(replicas=2))
        scene.watch_tells()
        await settled()
    assert scene.cluster.applied() == 1


async def test_another_template_is_applied(start: Start) -> None:
    scene = start()
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(a_pool(worker(image="shop:2")))
    await until(lambda: scene.live["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2")


async def test_who_does_not_lead_writes_nothing_and_who_leads_next_looks_at_everything(start: Start) -> None:
    scene = start(leads=False)
    scene.put(a_pool())
    await settled()
    assert scene.cluster.calls == []
    scene.reconciler.lead()
    await until(lambda: scene.cluster.applied() == 1)
    scene.reconciler.follow()
    scene.put(a_pool(replicas=5))
    await settled()
    assert scene.cluster.applied() == 1


async def test_an_invalid_pool_keeps_what_it_has(start: Start) -> None:
    scene = start()
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(None)
    await settled()
    assert (scene.cluster.applied(), NAME in scene.cluster.stored) == (1, True)


async def test_a_field_that_somebody_changes_is_set_back_less_and_less_often(start: Start) -> None:
    scene = start(drift_s=0.2)
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    began = asyncio.get_running_loop().time()
    scene.somebody_changes_it()
    await until(lambda: scene.cluster.applied() == 2)  # at once
    scene.somebody_changes_it()
    await until(lambda: scene.cluster.applied() == 3)
    scene.somebody_changes_it()
    await until(lambda: scene.cluster.applied() == 4)
    assert asyncio.get_running_loop().time() - began > 0.5  # 0.2 s, then 0.4 s


async def test_a_new_template_does_not_wait_for_a_quarrel_about_the_old_one(start: Start) -> None:
    scene = start(drift_s=60)
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    scene.somebody_changes_it()
    await until(lambda: scene.cluster.applied() == 2)
    scene.somebody_changes_it()
    scene.put(a_pool(worker(image="shop:2")))
    await until(lambda: scene.cluster.applied() == 3)


# --- how many ---


async def test_spec_replicas_counts_unless_the_pool_is_autoscaled(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=2))
    await until(lambda: NAME in scene.cluster.stored)
    assert scene.live["spec"]["replicas"] == 2
    scene.desired = 6
    scene.reconciler.changed(*KEY)
    await until(lambda: scene.live["spec"]["replicas"] == 6)


async def test_an_autoscaled_pool_of_which_nobody_knows_yet_stays_as_it_is(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=4))
    await until(lambda: NAME in scene.cluster.stored)
    scaling = a_pool(worker(image="shop:2"), replicas=1, autoscaling={"minReplicas": 1, "maxReplicas": 9})
    scene.put(scaling)
    await until(lambda: scene.cluster.applied() == 2)
    assert scene.live["spec"]["replicas"] == 4


async def test_a_new_leader_that_has_not_heard_of_the_deployment_yet_leaves_the_number_that_it_finds(
    start: Start,
) -> None:
    before = start()
    before.put(a_pool(replicas=4))
    await until(lambda: NAME in before.cluster.stored)
    scene = start()
    scene.cluster.stored = before.cluster.stored
    scene.put(a_pool(worker(image="shop:2"), autoscaling={"minReplicas": 0, "maxReplicas": 9}))
    await until(lambda: scene.cluster.applied())
    await settled()
    assert scene.live["spec"]["replicas"] == 4


async def test_idle_pods_are_chosen_before_the_number_goes_down_and_only_then(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=3))
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(a_pool(replicas=5))
    await until(lambda: scene.live["spec"]["replicas"] == 5)
    assert scene.removed == []
    scene.put(a_pool(replicas=1))
    await until(lambda: scene.live["spec"]["replicas"] == 1)
    assert scene.removed == [(4, 5)]


async def test_a_choice_that_fails_does_not_hold_up_the_scale_down(start: Start) -> None:
    scene = start()
    scene.hook_error = RuntimeError("no metrics")
    scene.put(a_pool(replicas=3))
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(a_pool(replicas=1))
    await until(lambda: scene.live["spec"]["replicas"] == 1)


# --- the authority ---


async def test_the_authority_is_there_before_the_pods_and_follows_its_changes(start: Start) -> None:
    scene = start()
    scene.bundle = "first"
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    assert scene.cluster.calls == ["read", "apply-ca", "apply"]
    assert scene.cluster.authorities == {NAMESPACE: "first"}
    scene.bundle = "second"
    scene.reconciler.ca_changed()
    await until(lambda: scene.cluster.authorities[NAMESPACE] == "second")
    assert scene.cluster.applied() == 1


async def test_an_authority_that_somebody_deleted_is_written_again_for_pods_that_wait_for_it(start: Start) -> None:
    scene = start(unready_s=0.02)
    scene.bundle = "first"
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    scene.cluster.authorities.clear()
    await until(lambda: scene.cluster.authorities)


# --- what is not ours ---


def a_deployment(**metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": NAME[1], "namespace": NAMESPACE, "uid": "other", "generation": 1, **metadata},
        "spec": {"replicas": 1},
    }


OURS = [{"manager": "tickwheel-operator", "operation": "Apply", "fieldsV1": {}}]
LABEL = {"tickwheel.io/pool": "shop"}


def owned_by(uid: str) -> list[dict[str, Any]]:
    return [{"uid": uid, "kind": "WorkerPool", "controller": True}]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "NameTaken"),
        ({"labels": LABEL}, "NameTaken"),
        ({"labels": LABEL, "ownerReferences": owned_by("somebody")}, "NameTaken"),
        ({"managedFields": OURS, "ownerReferences": owned_by("somebody")}, "NameTaken"),
        ({"labels": LABEL, "managedFields": OURS, "ownerReferences": owned_by("earlier")}, "Replacing"),
        ({"labels": LABEL, "managedFields": OURS, "deletionTimestamp": "now"}, "Replacing"),
    ],
)
async def test_a_deployment_that_is_not_the_pools_is_never_applied(
    start: Start, metadata: dict[str, Any], reason: str
) -> None:
    scene = start(refused_s=0.02)
    scene.cluster.stored[NAME] = a_deployment(**metadata)
    scene.watch_tells()
    scene.put(a_pool())
    await until(lambda: scene.deployments.get(*KEY) is not None)
    problem = scene.told().problem
    assert problem is not None
    assert (problem.reason, problem.stalled) == (reason, reason == "NameTaken")
    assert scene.cluster.applied() == 0
    del scene.cluster.stored[NAME]
    await until(lambda: scene.cluster.applied() == 1)


async def test_one_that_an_earlier_pool_left_behind_on_purpose_is_taken_over(start: Start) -> None:
    scene = start()
    scene.cluster.stored[NAME] = a_deployment(labels=LABEL, managedFields=OURS)
    scene.put(a_pool())
    await until(lambda: scene.cluster.applied() == 1)
    assert scene.live["metadata"]["uid"] == "other"


async def test_a_pool_that_loses_its_template_deletes_its_deployment_and_nobody_elses(start: Start) -> None:
    scene = start()
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    scene.put(without_template())
    await until(lambda: NAME not in scene.cluster.stored)
    assert scene.deployments.get(*KEY) is None
    scene.cluster.stored[NAME] = a_deployment(labels=LABEL, ownerReferences=owned_by("somebody"))
    scene.watch_tells()
    scene.put(without_template())
    await settled()
    assert NAME in scene.cluster.stored


async def test_a_deployment_of_the_users_own_that_has_the_pools_label_is_not_mistaken_for_it(start: Start) -> None:
    scene = start()
    scene.deployments.seen(scene.deployments.read(a_deployment(name="by-hand", labels=LABEL, managedFields=OURS)))
    scene.put(a_pool())
    await until(lambda: NAME in scene.cluster.stored)
    assert scene.cluster.calls == ["read", "apply"]
    assert scene.live["metadata"]["uid"] != "other"


def without_template() -> WorkerPool:
    pool = a_pool()
    return pool.model_copy(update={"spec": pool.spec.model_copy(update={"template": None})})


# --- what is in the way ---


async def test_what_the_template_may_not_have_is_told_and_nothing_is_applied(start: Start) -> None:
    scene = start()
    scene.put(a_pool(pod={"hostNetwork": True}))
    await until(lambda: scene.deployments.get(*KEY) is not None)
    problem = scene.told().problem
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("TemplateNotAllowed", True)
    assert problem.message.startswith("spec.template.spec.hostNetwork: ")
    assert scene.cluster.calls == []


async def test_a_refusal_is_told_and_tried_again_more_and_more_rarely_whatever_the_watch_says(start: Start) -> None:
    scene = start(refused_s=0.1)
    scene.cluster.refusal = refused(403, "Forbidden", "exceeded quota")
    scene.put(a_pool())
    await until(lambda: scene.cluster.applied() == 1)
    await settled()
    problem = scene.told().problem
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("Forbidden", True)
    assert problem.message == "the API server refuses the Deployment: exceeded quota"
    for _ in range(5):  # each status that is written is an event of the pool
        scene.put(a_pool())
    began = asyncio.get_running_loop().time()
    await until(lambda: scene.cluster.applied() == 3)
    assert asyncio.get_running_loop().time() - began > 0.2
    scene.cluster.refusal = None
    await until(lambda: NAME in scene.cluster.stored)
    await until(lambda: scene.told().problem is None)


async def test_another_template_is_tried_at_once_after_a_refusal(start: Start) -> None:
    scene = start(refused_s=60)
    scene.cluster.refusal = refused(422, "Invalid", "no")
    scene.put(a_pool())
    await until(lambda: scene.cluster.applied() == 1)
    scene.cluster.refusal = None
    scene.put(a_pool(worker(image="shop:2")))
    await until(lambda: NAME in scene.cluster.stored)


async def test_an_api_server_that_does_not_answer_is_no_fault_of_the_pool(start: Start) -> None:
    scene = start()
    scene.cluster.refusal = ApiUnavailable("connection refused")
    scene.put(a_pool())
    await until(lambda: scene.deployments.get(*KEY) is not None)
    problem = scene.told().problem
    assert problem is not None
    assert not problem.stalled
    scene.cluster.refusal = None
    await until(lambda: NAME in scene.cluster.stored)
    await until(lambda: scene.told().problem is None)


async def test_progress_is_told_as_the_deployment_makes_it(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=3))
    await until(lambda: NAME in scene.cluster.stored)
    scene.status(replicas=3, readyReplicas=2, updatedReplicas=3, availableReplicas=2)
    told = scene.told()
    assert (told.desired, told.replicas, told.ready, told.updated, told.unavailable) == (3, 3, 2, 3, 1)
    assert not told.settled
    scene.status(replicas=3, readyReplicas=3, updatedReplicas=3, availableReplicas=3)
    await until(lambda: scene.told().settled)


async def test_counts_of_an_older_template_do_not_count_as_updated(start: Start) -> None:
    scene = start()
    scene.put(a_pool(replicas=1))
    await until(lambda: NAME in scene.cluster.stored)
    scene.status(replicas=1, readyReplicas=1, updatedReplicas=1, availableReplicas=1)
    scene.put(a_pool(worker(image="shop:2"), replicas=1))
    await until(lambda: scene.cluster.applied() == 2)
    await settled()
    assert (scene.told().updated, scene.told().settled) == (0, False)


async def test_pods_that_do_not_become_ready_are_asked_why(start: Start) -> None:
    scene = start(unready_s=0.03)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "shop:1"'}
    scene.cluster.pod_objects = [
        {
            "metadata": {"name": "w-1"},
            "status": {"containerStatuses": [{"name": "worker", "state": {"waiting": waiting}}]},
        }
    ]
    scene.put(a_pool(replicas=1))
    await until(lambda: scene.deployments.get(*KEY) is not None and scene.told().problem is not None)
    problem = scene.told().problem
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("ImagePullBackOff", False)
    assert 'pod w-1: container worker: ImagePullBackOff: Back-off pulling image "shop:1"' in problem.message
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    scene.status(replicas=1, conditions=[failed])
    await until(lambda: scene.told().problem != problem)
    problem = scene.told().problem
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("ImagePullBackOff", True)
    assert "0 of 1 workers are ready" in problem.message
    scene.status(replicas=1, readyReplicas=1, updatedReplicas=1, availableReplicas=1)
    await until(lambda: scene.told().settled)
