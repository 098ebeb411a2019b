"""A checkpoint and the facts after it give the state that all facts give."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine import snapshot
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.spec import Backoff, RetryPolicy
from tickwheel_operator.engine.state import State

STEPS = st.lists(
    st.sampled_from(["tick", "pull", "succeed", "result", "fail", "return", "submit", "gone"]), max_size=40
)


def _play(steps: list[str]) -> Driver:
    retry = RetryPolicy(limit=1, backoff=Backoff(initial_ms=700))
    driver = Driver.leading(task_spec("a"), task_spec("b", retry=retry))
    held: list[int] = []
    for number, step in enumerate(steps):
        driver.now_ms = T0 + number * 400
        match step:
            case "tick":
                driver.do(m.Tick())
            case "pull":
                held += [d.token for d in deliveries(driver.pull(free=2, received=max(held, default=0)))]
            case "submit":
                driver.submit(f"k{number % 5}", name="a", parameters=b'{"n":1}')
            case "gone":
                driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
                held.clear()
            case _ if held:
                token = held.pop(0)
                what = {
                    "succeed": {"succeeded": [token]},
                    "result": {"results": [(token, b'{"x":[1,2]}')]},
                    "fail": {"failed": [m.FailedAttempt(token=token, error_type="E", message="m", traceback="t")]},
                    "return": {"returned": [token]},
                }[step]
                driver.report(**what)
            case _:
                pass
    return driver


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, cut=st.integers(0, 200))
def test_a_checkpoint_and_its_tail_give_the_state_of_all_facts(steps: list[str], cut: int) -> None:
    facts = _play(steps).facts
    cut = min(cut, len(facts))
    whole = State()
    for fact in facts:
        whole.apply(fact)

    before = Engine(now_ms=T0)
    before.replay(facts[:cut])
    after = Engine(now_ms=T0)
    after.restore(before.snapshot())
    after.replay(facts[cut:])

    assert snapshot.dump(after.state) == snapshot.dump(whole)


def test_a_leaders_own_state_is_the_fold_of_its_facts() -> None:
    driver = _play(["tick", "pull", "tick", "pull", "fail", "submit", "pull", "result", "tick", "tick", "pull"])
    folded = State()
    for fact in driver.facts:
        folded.apply(fact)

    assert snapshot.dump(folded) == snapshot.dump(driver.engine.state)
