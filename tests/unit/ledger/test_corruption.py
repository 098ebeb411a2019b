"""Whatever is wrong with a log, a takeover and `tickwheel ledger verify` say the same, in the one error that names it.

A log with every kind of fact and a checkpoint is damaged at random: bytes, facts, rows, whole segments.
"""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.contract.ledger import LIMITS, a_ledger
from tests.contract.memory_store import MemorySegmentStore
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.spec import Overlap, OverlapPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import codec
from tickwheel_operator.ledger.folding import fold
from tickwheel_operator.ledger.inspect import Severity, verify
from tickwheel_operator.ledger.protocol import LedgerCorrupt, Segment, SegmentKind

SEEDS = int(os.environ.get("TICKWHEEL_CORRUPTIONS", "1500"))
LEDGER_LIMITS = msgspec.structs.replace(LIMITS, max_chunk_bytes=900)
Damage = Callable[[random.Random, MemorySegmentStore], None]


def _story(driver: Driver, chance: random.Random, held: list[int], step: int) -> None:
    """One thing that happens."""
    driver.now_ms = T0 + step * 450
    match chance.randrange(9):
        case 0 | 1:
            driver.do(m.Tick())
        case 2 | 3:
            worker = f"w{chance.randrange(2)}"
            held += [(worker, d.token) for d in deliveries(driver.pull(worker, free=3, received=10**6))]  # type: ignore[misc]
        case 4:
            driver.submit(f"k{step}", parameters=b'{"n":1}', object_name=f"o{step}" if step % 2 else "")
        case 5:
            driver.submit(f"d{step}", delay_ms=chance.choice((300, 5_000)), front=True)
        case 6:
            driver.backfill(-5_000 - step, -1_000, name="limited")
        case 7 if runs := driver.open_runs():
            driver.cancel(chance.choice(runs).id)
        case _ if held:
            worker, token = held.pop(0)  # type: ignore[misc]
            how: Any = chance.choice((
                {"succeeded": [token]}, {"results": [(token, b'{"x":1}')]}, {"returned": [token]},
                {"failed": [m.FailedAttempt(token=token, error_type="E", message="m", traceback="t")]},
            ))  # fmt: skip
            driver.report(worker, **how)
        case _:
            pass


async def _log(seed: int) -> MemorySegmentStore:
    """A whole log, with two takeovers and a checkpoint."""
    chance, store, held = random.Random(seed), MemorySegmentStore(), []
    limited = task_spec(
        "limited", trigger=FixedRateTrigger(1_000, T0 - 60_000), created_ms=T0 - 60_000,
        overlap=Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=2),
    )  # fmt: skip
    driver = Driver.leading(task_spec(), limited)
    ledger = a_ledger(store, limits=LEDGER_LIMITS)
    await ledger.open(0)
    written = 0
    for step in range(40):
        _story(driver, chance, held, step)
        if len(driver.facts) > written:
            await ledger.append(driver.facts[written:])
            written = len(driver.facts)
        if step == 20:
            await ledger.checkpoint(driver.engine.snapshot(), stands_for=ledger.last_sequence)
            await ledger.swept()
        if step == 30:
            ledger = a_ledger(store, "b", limits=LEDGER_LIMITS)
            await ledger.open(0)
    await ledger.close()
    return store


# --- damages ---------------------------------------------------------------------------------------------------------


def _replace(store: MemorySegmentStore, segment: Segment, data: bytes) -> None:
    key = segment.partition, segment.sequence
    store.segments[key] = msgspec.structs.replace(segment, data=data, size_bytes=len(data))


def _chosen(chance: random.Random, store: MemorySegmentStore, *kinds: SegmentKind) -> Segment:
    return chance.choice([s for s in store.segments.values() if not kinds or s.kind in kinds])


def flip(chance: random.Random, store: MemorySegmentStore) -> None:
    """Bytes as stored."""
    segment = _chosen(chance, store)
    _replace(store, segment, _flipped(chance, segment.data))


def flip_inside(chance: random.Random, store: MemorySegmentStore) -> None:
    """Bytes of the content, under a checksum that fits."""
    segment = _chosen(chance, store)
    content, version = {
        SegmentKind.EPOCH: (codec._Content.EPOCH, codec._EPOCH_VERSION),
        SegmentKind.FACTS: (codec._Content.FACTS, codec.FORMAT_VERSION),
        SegmentKind.CHECKPOINT: (codec._Content.CHECKPOINT, codec._CHECKPOINT_VERSION),
    }[segment.kind]
    raw = codec._open(segment.data, content, version, "")
    _replace(store, segment, codec._seal(content, version, _flipped(chance, raw)))


def change_a_value(chance: random.Random, store: MemorySegmentStore) -> None:
    """A field of a fact, by one of its type or of another."""
    segment = _chosen(chance, store, SegmentKind.FACTS)
    facts = msgspec.msgpack.decode(codec._open(segment.data, codec._Content.FACTS, codec.FORMAT_VERSION, ""))
    _change(chance, facts)
    _replace(store, segment, codec._seal(codec._Content.FACTS, codec.FORMAT_VERSION, msgspec.msgpack.encode(facts)))


def rearrange_facts(chance: random.Random, store: MemorySegmentStore) -> None:
    """A fact is lost, there twice, or out of order."""
    segment = _chosen(chance, store, SegmentKind.FACTS)
    facts = codec.decode_facts(segment.data, where="")
    place = chance.randrange(len(facts))
    match chance.randrange(3):
        case 0:
            del facts[place]
        case 1:
            facts.insert(chance.randrange(len(facts) + 1), facts[place])
        case _:
            chance.shuffle(facts)
    _replace(store, segment, codec.encode_facts(facts))


def change_a_row(chance: random.Random, store: MemorySegmentStore) -> None:
    """A value of the checkpoint, which is written anew with the same number of segments."""
    chunks = sorted((s for s in store.segments.values() if s.kind is SegmentKind.CHECKPOINT), key=lambda s: s.sequence)
    stream = codec.decode_checkpoint([("", chunk.data) for chunk in chunks])
    place = chance.randrange(len(stream))
    rows = msgspec.msgpack.decode(stream[place])
    _change(chance, rows)
    stream[place] = msgspec.msgpack.encode(rows)
    framed = b"".join(len(payload).to_bytes(4, "big") + payload for payload in stream)
    part = len(framed) // len(chunks) + 1
    for number, chunk in enumerate(chunks):
        raw = framed[number * part : (number + 1) * part]
        _replace(store, chunk, codec._seal(codec._Content.CHECKPOINT, codec._CHECKPOINT_VERSION, raw))


def lose_a_segment(chance: random.Random, store: MemorySegmentStore) -> None:
    segment = _chosen(chance, store)
    del store.segments[segment.partition, segment.sequence]


def put_a_segment_elsewhere(chance: random.Random, store: MemorySegmentStore) -> None:
    one, other = _chosen(chance, store), _chosen(chance, store)
    _replace(store, one, other.data)


DAMAGES: tuple[Damage, ...] = (
    flip, flip_inside, change_a_value, rearrange_facts, change_a_row, lose_a_segment, put_a_segment_elsewhere,
)  # fmt: skip


def _flipped(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.choice((0, 0x80, 0xC1, 0xFF, chance.randrange(256)))
    return bytes(changed if chance.random() < 0.9 else changed[: chance.randrange(len(changed))])


def _change(chance: random.Random, value: list[Any]) -> None:
    """Something in the nested lists."""
    while True:
        place = chance.randrange(len(value))
        if isinstance(value[place], list) and value[place] and chance.random() < 0.9:
            value = value[place]
            continue
        old = value[place]
        near = old + chance.choice((-1, 1)) if isinstance(old, int) and not isinstance(old, bool) else old
        value[place] = chance.choice((near, near, 0, -1, 2**63 - 1, "", "x", b"\xff", None, [], [[1]], 1.5, True))
        return


# --- the proof -------------------------------------------------------------------------------------------------------


async def _taken_over(store: MemorySegmentStore) -> str:
    """What a takeover says; empty: it succeeds."""
    copy = MemorySegmentStore(dict(store.segments))
    ledger = a_ledger(copy, "successor", limits=LEDGER_LIMITS)
    try:
        await fold(await ledger.open(0), Engine(now_ms=T0 + 60_000))
    except LedgerCorrupt as error:
        return str(error)
    finally:
        await ledger.close()
    return ""


async def _verified(store: MemorySegmentStore) -> list[str]:
    findings = await verify(MemorySegmentStore(dict(store.segments)), 0)
    return [finding.message for finding in findings if finding.severity is Severity.ERROR]


async def test_a_whole_log_has_nothing_wrong() -> None:
    store = await _log(1)
    assert {s.kind for s in store.segments.values()} == set(SegmentKind)
    assert sum(s.kind is SegmentKind.CHECKPOINT for s in store.segments.values()) > 1
    assert await _taken_over(store) == ""
    assert await _verified(store) == []


@pytest.mark.parametrize("damage", DAMAGES)
async def test_takeover_and_verify_agree_on_a_damaged_log_and_name_the_segment(damage: Damage) -> None:
    logs = [await _log(seed) for seed in range(4)]
    corrupt = 0
    for seed in range(SEEDS // len(DAMAGES)):
        chance = random.Random(f"{damage.__name__} {seed}")
        store = MemorySegmentStore(dict(chance.choice(logs).segments))
        damage(chance, store)
        try:
            said, found = await _taken_over(store), await _verified(store)
        except Exception:
            raise AssertionError(f"seed {seed}:\n{traceback.format_exc()}") from None
        assert bool(said) == bool(found), f"seed {seed}: a takeover says {said!r}, verify {found}"
        assert not said or "p0-" in said, f"seed {seed}: {said!r} names no segment"
        corrupt += bool(said)
    assert corrupt, "it damaged nothing"
