"""Early leases, delays, jitter and clocks that jump: when a run may start."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.identity import jitter_ms
from tickwheel_operator.engine.spec import Backoff, EngineConfig, Overlap, OverlapPolicy, RetryPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger, OnceTrigger
from tickwheel_operator.ledger import facts as f


def _leading(**changes: object) -> Driver:
    driver = Driver.leading(task_spec(**changes))
    driver.do(m.LeadSet(lead_ms=20))
    return driver


def test_a_run_is_leased_ahead_to_a_worker_that_knows_the_time() -> None:
    driver = _leading()
    driver.at(1_000)  # the timer of the first instant was set before the lead
    driver.engine.handle(m.Tick(), T0 + 1_001)
    driver.at(1_500)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    assert driver.at(1_979) == []
    [early] = deliveries(driver.at(1_980))
    assert (early.scheduled_ms, early.not_before_ms) == (T0 + 2_000, T0 + 2_000)
    assert driver.at(2_000) == [], "not twice"
    run = driver.open_runs()[0]
    assert run.started_ms == T0 + 2_000
    assert driver.engine.stats.early_leases == 1


def test_what_failed_before_its_instant_is_tried_again_at_its_instant() -> None:
    driver = _leading(retry=RetryPolicy(limit=1, backoff=Backoff(initial_ms=1, jitter=0)))
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    [early] = deliveries(driver.at(1_980))
    driver.report(failed=[m.FailedAttempt(token=early.token, error_type="E", message="its clock is wrong")])
    driver.pull(error_us=None, free=5, received=early.token)
    assert deliveries(driver.at(1_990)) == []
    [again] = deliveries(driver.at(2_000))
    assert again.scheduled_ms == T0 + 2_000


def test_a_worker_with_a_vague_or_wild_clock_gets_its_lease_at_the_instant() -> None:
    for clock in ({"error_us": None}, {"error_us": 50_000}, {"error_us": 10, "offset_us": -5_000_000}):
        driver = _leading()
        driver.at(1_000)
        [first] = deliveries(driver.pull(**clock))
        driver.report(succeeded=[first.token])
        driver.pull(received=first.token, **clock)
        assert deliveries(driver.at(1_980)) == []
        [lease] = deliveries(driver.at(2_000))
        assert lease.not_before_ms == 0
        assert any(fired.scheduled_ms == T0 + 2_000 for fired in driver.of(f.Fired)), "durable ahead of its instant"


def test_a_clock_that_is_as_vague_as_it_may_be_is_good_enough() -> None:
    driver = _leading()
    driver.at(1_000)
    [first] = deliveries(driver.pull())
    driver.report(succeeded=[first.token])
    driver.pull(received=first.token, error_us=10_000, offset_us=-1_000_000)
    [early] = deliveries(driver.at(1_980))
    assert early.not_before_ms == T0 + 2_000


def test_a_run_that_an_open_one_may_stop_is_decided_at_its_instant() -> None:
    driver = _leading(overlap=Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1))
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.at(1_990)
    assert driver.of(f.Skipped) == []
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    [second] = deliveries(driver.at(2_000))
    assert second.scheduled_ms == T0 + 2_000


def test_a_task_that_comes_within_the_lead_still_gets_its_instant() -> None:
    driver = _leading()
    driver.at(1_980)
    late = task_spec("late", created_ms=T0 + 1_990)
    driver.at(1_990, m.TaskApplied(spec=late))
    driver.at(2_000)
    assert [run.scheduled_ms - T0 for run in driver.open_runs("late")] == [2_000]


def test_every_instant_is_fired_once_though_the_period_is_shorter_than_the_lead() -> None:
    driver = Driver.leading(
        task_spec(trigger=FixedRateTrigger(10, T0)), config=EngineConfig(misfire_threshold_ms=1_000)
    )
    driver.do(m.LeadSet(lead_ms=25))
    for offset in range(0, 501, 5):
        driver.at(offset)
        driver.at(offset)
    fired = [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)]
    assert fired == list(range(10, 521, 10))


def test_an_early_lease_that_its_worker_left_behind_is_given_to_another() -> None:
    driver = _leading()
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    [early] = deliveries(driver.at(1_985))
    driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    assert deliveries(driver.pull("w1")) == [], "not before its instant"
    [again] = deliveries(driver.at(2_000))
    assert (again.run_id, again.attempt) == (early.run_id, 2)


def test_a_delayed_run_starts_when_its_delay_is_over_at_the_tail_or_ahead_of_the_queue() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("tail", delay_ms=500)
    driver.submit("front", delay_ms=500, front=True)
    driver.at(100)
    driver.submit("other")
    driver.at(600)
    runs = {run.id: run.key for run in driver.open_runs()}
    got = deliveries(driver.pull())
    assert [runs[d.run_id] for d in got] == ["front", "other", "tail"]
    assert [d.scheduled_ms - T0 for d in got] == [500, 100, 500]


def test_a_successor_waits_for_the_rest_of_a_delay() -> None:
    spec = task_spec(trigger=None)
    driver = Driver.leading(spec)
    driver.submit("k", delay_ms=5_000)
    new = driver.successor(spec, now_ms=T0 + 2_000)
    assert deliveries(new.pull()) == []
    assert deliveries(new.at(4_999)) == []
    assert len(deliveries(new.at(5_000))) == 1


def test_a_successor_keeps_the_jitter_of_a_run_that_was_leased_early() -> None:
    spec = task_spec(jitter_ms=400)
    driver = Driver.leading(spec)
    driver.do(m.LeadSet(lead_ms=450))
    start = 2_000 + jitter_ms("uid-hello", T0 + 2_000, 400)
    driver.at(1_000)
    [first] = deliveries(driver.at(1_000 + jitter_ms("uid-hello", T0 + 1_000, 400)) or driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.at(1_960)
    [early] = deliveries(driver.pull(error_us=300, received=first.token))
    assert (early.scheduled_ms, early.not_before_ms) == (T0 + 2_000, T0 + start)
    new = driver.successor(spec, now_ms=T0 + 2_001)
    [again] = deliveries(new.pull(error_us=300, received=first.token))
    assert (again.token, again.not_before_ms) == (early.token, T0 + start)


def test_jitter_moves_each_run_by_what_its_name_says() -> None:
    driver = Driver.leading(task_spec(jitter_ms=400))
    shift = jitter_ms("uid-hello", T0 + 1_000, 400)
    assert 0 < shift <= 400
    driver.pull()
    assert deliveries(driver.at(1_000)) == []
    assert deliveries(driver.at(1_000 + shift - 1)) == []
    [run] = deliveries(driver.at(1_000 + shift))
    assert run.scheduled_ms == T0 + 1_000
    other = driver.successor(task_spec(jitter_ms=400), now_ms=T0 + 1_001)
    assert other.engine.state.runs


def test_a_clock_set_back_fires_nothing_twice_and_loses_no_worker_for_it() -> None:
    driver = Driver.leading(task_spec())
    driver.boot_ms = T0
    driver.now_ms, driver.boot_ms = T0 + 5_000, T0 + 5_000
    driver.do(m.Tick())
    [*_, last] = deliveries(driver.pull())
    hour = 3_600_000
    driver.now_ms -= hour
    for _ in range(40):  # ten leases
        driver.now_ms += 4_000
        driver.boot_ms += 4_000
        driver.do(m.Tick())
    assert len(driver.of(f.Fired)) == len({fact.scheduled_ms for fact in driver.of(f.Fired)})
    assert max(fact.scheduled_ms for fact in driver.of(f.Fired)) == T0 + 5_000
    lost = [fact for fact in driver.of(f.Failed) if fact.reason is f.FailureReason.LOST]
    assert last.token in {fact.token for fact in lost}, "its lease ended, by the clock that never jumps"
    driver.now_ms = T0 + 6_000
    driver.do(m.Tick())
    assert max(fact.scheduled_ms for fact in driver.of(f.Fired)) == T0 + 6_000


def test_a_clock_that_jumps_ahead_is_settled_by_the_misfire_policy() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(3_600_000)
    fired = [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)]
    assert fired == [1_000, 3_598_000, 3_599_000, 3_600_000]
    assert sum(skip.count for skip in driver.of(f.Skipped)) == 3_596
    assert {skip.reason for skip in driver.of(f.Skipped)} == {f.SkipReason.COALESCED}


def test_an_edited_trigger_counts_what_it_leaves_undone() -> None:
    driver = Driver.leading(task_spec())
    driver.do(m.IntakeHeld(reason="full"))
    driver.at(5_500)
    driver.do(m.TaskApplied(spec=task_spec(generation=2, trigger=FixedRateTrigger(2_000, T0))))
    assert [(s.count, s.reason) for s in driver.of(f.Skipped)] == [(5, f.SkipReason.EDITED)]
    driver.do(m.IntakeHeld(reason=""))
    driver.at(6_000)
    assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)] == [6_000]


def test_a_worker_that_comes_within_the_lead_gets_what_is_near() -> None:
    driver = _leading()
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    assert driver.at(1_980) == []
    driver.now_ms = T0 + 1_990
    assert deliveries(driver.pull("vague")) == []
    [early] = deliveries(driver.pull("timed", error_us=300))
    assert early.not_before_ms == T0 + 2_000
    assert driver.at(2_000) == []


def test_leases_of_several_commands_share_one_answer_where_the_host_gathers() -> None:
    specs = [task_spec(f"t{offset}", trigger=OnceTrigger(T0 + 1_000 + offset)) for offset in (0, 1, 2)]
    driver = Driver.leading(*specs)
    driver.engine.gather()
    driver.pull(free=2)
    for offset in (1_000, 1_001, 1_002):
        assert driver.at(offset) == []
    assert driver.engine.answers_within(0)
    [answer] = driver.engine.answers()
    assert [d.task.name for d in deliveries([answer])] == ["t0", "t1"], "as many as it asked for"
    assert not driver.engine.answers_within(0)
    driver.pull(free=2, received=deliveries([answer])[-1].token)
    assert [d.task.name for d in deliveries(driver.engine.answers())] == ["t2"]


def test_an_answer_goes_out_for_the_soonest_of_the_leases_that_share_it() -> None:
    driver = Driver.leading(task_spec(), task_spec("now", trigger=None))
    driver.do(m.LeadSet(lead_ms=20))
    driver.at(1_000)  # the timer of the first instant was set before the lead
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.engine.gather()
    driver.at(1_985)
    driver.submit("k", name="now")
    driver.pull(error_us=300, received=first.token)
    assert len(driver.of(f.Leased)[-1].dispatches) == 2, "one that is due, and one that is near"
    assert driver.engine.answers_within(0)


def test_what_was_gathered_for_a_pull_that_broke_off_is_sent_again() -> None:
    driver = Driver.leading(task_spec(trigger=FixedRateTrigger(1_000, T0)))
    driver.engine.gather()
    driver.pull()
    driver.at(1_000)
    driver.do(m.PullEnded(request=1))
    assert driver.engine.answers() == []
    effects = driver.pull()
    assert len(deliveries([*effects, *driver.engine.answers()])) == 1


def test_after_a_clock_was_set_back_a_lease_names_the_start_by_the_clock_that_the_worker_sees() -> None:
    driver = _leading(trigger=None, retry=RetryPolicy(limit=3, backoff=Backoff(initial_ms=1_000, factor=1.0)))
    driver.at(10)
    driver.submit("k")
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(failed=[m.FailedAttempt(token=first.token, error_type="E")])
    driver.pull(error_us=300, received=first.token)
    driver.now_ms, driver.boot_ms = driver.now_ms - 3_600_000 + 985, T0 + 10 + 985
    [again] = deliveries(driver.do(m.Tick()))
    assert again.not_before_ms == driver.now_ms + 15
    [attempt] = driver.engine.state.attempts.values()
    assert attempt.lease_until_ms == driver.boot_ms + 15 + 15_000


def test_an_edit_in_the_moment_of_an_early_lease_leases_nothing_twice() -> None:
    driver = _leading()
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    edited = task_spec(generation=2, parameters=b'{"edited":true}')
    [early] = deliveries(driver.at(1_985, m.TaskApplied(spec=edited)))
    assert early.not_before_ms == T0 + 2_000
    assert [fact.dispatches for fact in driver.of(f.Leased)][-1] == [2]
    assert list(driver.engine.state.attempts) == [early.token]


def test_an_early_lease_that_is_lost_under_a_leader_whose_clock_is_behind_is_tried_at_its_instant() -> None:
    driver = _leading()
    driver.at(1_000)
    [first] = deliveries(driver.pull(error_us=300))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=300, received=first.token)
    [early] = deliveries(driver.at(1_985))
    new = driver.successor(task_spec(), now_ms=T0 - 3_000)
    new.do(m.LeadSet(lead_ms=20))
    new.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    assert new.of(f.Failed)[-1].retry_ms == T0 + 2_000
    new.pull("w1", error_us=300)
    assert deliveries(new.at(1_979)) == []
    [again] = deliveries(new.at(1_980))
    assert (again.run_id, again.not_before_ms) == (early.run_id, T0 + 2_000)


def test_an_edit_costs_a_run_that_is_expected_at_a_worker_no_turn() -> None:
    driver = Driver.leading(task_spec(), task_spec("other"))
    driver.do(m.LeadSet(lead_ms=20))
    driver.at(1_000)
    driver.report(succeeded=[delivery.token for delivery in deliveries(driver.pull())])
    driver.at(1_980)
    driver.at(1_985, m.TaskApplied(spec=task_spec(generation=2, parameters=b'{"edited":true}')))

    [first] = deliveries(driver.pull(free=1, error_us=300, received=2))

    assert (first.task.name, first.not_before_ms) == ("hello", T0 + 2_000)


def test_a_jittered_run_that_was_given_back_waits_for_its_instant_where_a_clock_is_behind() -> None:
    """As one without jitter: a leader whose clock is behind goes by what the facts say."""
    spec = task_spec(trigger=OnceTrigger(T0 + 2_000), jitter_ms=100)
    driver = Driver.leading(spec)
    driver.at(2_500)
    [delivery] = deliveries(driver.pull())
    driver.report(returned=[delivery.token])

    new = driver.successor(spec, now_ms=T0 + 2_400)
    assert deliveries(new.pull("w1")) == []
    assert len(deliveries(new.at(2_500))) == 1


def test_an_attempt_is_not_waited_for_as_long_as_a_leaders_clock_is_behind() -> None:
    driver = _leading()
    driver.at(1_000)
    [delivery] = deliveries(driver.pull())
    new = driver.successor(task_spec(), now_ms=T0 - 60_000)
    new.boot_ms = new.now_ms
    for _ in range(20):
        new.now_ms += 1_000
        new.boot_ms += 1_000
        new.do(m.Tick())
    assert [fact.token for fact in new.of(f.Failed)] == [delivery.token], "a lease, and two seconds"
