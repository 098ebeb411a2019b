"""Which pods go when a pool shrinks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tickwheel_operator.pools.deletion_cost import PodSlots, choose

pods = st.lists(
    st.builds(
        PodSlots,
        st.from_regex("[a-z]{1,4}", fullmatch=True),
        st.sampled_from([None, "100", "-1", "-10001", "-10002"]),
        st.integers(0, 20),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda pod: pod.name,
)


def pod(name: str, used: int, cost: str | None = None, *, draining: bool = False, connected: bool = True) -> PodSlots:
    return PodSlots(name, cost, used, draining, connected)


def removed(pods: list[PodSlots], remove: int) -> set[str]:
    """What a ReplicaSet does with the annotations: the lowest go first, all else equal."""
    patches = choose(pods, remove)
    costs = {pod.name: int(patches.get(pod.name, pod.cost) or 0) for pod in pods}
    return set(sorted(costs, key=lambda name: costs[name])[:remove])


def test_idle_pods_go_before_busy_ones_and_those_that_drain_before_both() -> None:
    pods = [pod("busy", 5), pod("idle", 0), pod("little", 1), pod("drains", 7, draining=True)]
    assert removed(pods, 1) == {"drains"}
    assert removed(pods, 2) == {"drains", "idle"}
    assert removed(pods, 3) == {"drains", "idle", "little"}


def test_a_pod_whose_worker_has_not_called_yet_goes_before_one_that_works() -> None:
    assert removed([pod("idle", 0), pod("starting", 0, connected=False)], 1) == {"starting"}


def test_only_the_pods_that_go_are_written_and_those_that_stayed_lose_what_they_had() -> None:
    pods = [pod("a", 3), pod("b", 0), pod("c", 9), pod("stayed", 2, "-10001")]
    assert choose(pods, 1) == {"b": "-10001", "stayed": None}
    assert choose([pod("b", 0, "-10001"), pod("a", 3)], 1) == {}


def test_a_cost_that_somebody_else_set_is_left() -> None:
    assert choose([pod("a", 0), pod("theirs", 4, "100")], 1) == {"a": "-10001"}


@given(pods, st.integers(0, 12))
def test_no_pod_goes_that_has_more_to_do_than_one_that_stays(pods: list[PodSlots], remove: int) -> None:
    gone = removed(pods, min(remove, len(pods)))
    working = [pod for pod in pods if not pod.draining and pod.connected]
    assert max((p.used for p in working if p.name in gone), default=0) <= min(
        (p.used for p in working if p.name not in gone), default=10_000
    )


@given(pods, st.integers(0, 12))
def test_what_was_written_is_not_written_again(pods: list[PodSlots], remove: int) -> None:
    patches = choose(pods, remove)
    written = [PodSlots(p.name, patches.get(p.name, p.cost), p.used, p.draining, p.connected) for p in pods]
    assert choose(written, remove) == {}
