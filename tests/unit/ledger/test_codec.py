"""The bytes of a segment: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import random
import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwheel_operator.ledger import codec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.protocol import LedgerCorrupt

numbers = st.integers(min_value=0, max_value=2**50)
columns = st.lists(numbers, max_size=40)
texts = st.text(max_size=30)
some_facts = st.lists(
    st.one_of(
        st.builds(f.Clock, numbers),
        st.builds(f.TaskNamed, numbers, texts, texts, texts, texts, numbers),
        st.builds(f.TaskForgotten, numbers),
        st.builds(f.Armed, numbers, texts, numbers),
        st.builds(f.Fired, numbers, numbers, columns),
        st.builds(f.Submitted, numbers, numbers, numbers, texts, texts, st.binary(max_size=50)),
        st.builds(f.Skipped, numbers, numbers, numbers, st.sampled_from(f.SkipReason)),
        st.builds(f.WorkerNamed, numbers, texts, texts, texts, texts),
        st.builds(f.Leased, numbers, numbers, columns),
        st.builds(f.Succeeded, columns),
        st.builds(f.SucceededWith, numbers, st.binary(max_size=50)),
        st.builds(f.Failed, numbers, st.sampled_from(f.FailureReason), numbers, texts, texts, texts),
        st.builds(f.Returned, columns),
        st.builds(f.Cancelled, numbers, texts),
        st.builds(f.Undelivered, numbers, numbers),
    ),
    max_size=20,
)
SAMPLE = codec.encode_facts([f.Clock(1), f.Fired(1, 100, list(range(200)))])


@given(some_facts)
def test_facts_come_out_as_they_went_in(batch):
    assert codec.decode_facts(codec.encode_facts(batch), where="p0-1") == batch


@given(position=st.integers(min_value=0, max_value=len(SAMPLE) - 1), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_is_noticed(position, bit):
    damaged = bytearray(SAMPLE)
    damaged[position] ^= 1 << bit
    with pytest.raises(LedgerCorrupt, match=r"^p0-7: "):
        codec.decode_facts(bytes(damaged), where="p0-7")


@given(length=st.integers(min_value=0, max_value=len(SAMPLE) - 1))
def test_every_truncation_is_noticed(length):
    with pytest.raises(LedgerCorrupt, match="cut off"):
        codec.decode_facts(SAMPLE[:length], where="p0-7")


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("batch", [[f.Clock(1)], [f.Fired(1, 100, list(range(200)))]], ids=["stored", "deflated"])
def test_a_content_that_is_not_as_long_as_its_header_says_is_noticed(batch, by):
    data = codec.encode_facts(batch)
    head, stored = data[:12], data[codec.HEADER_BYTES :]
    head = head[:8] + struct.pack(">I", struct.unpack(">I", head[8:])[0] + by)
    sealed = head + struct.pack(">I", zlib.crc32(head + stored)) + stored

    with pytest.raises(LedgerCorrupt, match=r"p0-7: \d+ bytes came out where the segment says \d+"):
        codec.decode_facts(sealed, where="p0-7")


def test_a_newer_segment_format_says_which_release_to_run():
    newer = bytearray(SAMPLE)
    newer[3] = 9
    with pytest.raises(LedgerCorrupt, match="segment format 9 is unknown to this release, which reads 1; run the"):
        codec.decode_facts(bytes(newer), where="p0-7")


def test_a_newer_fact_format_says_which_release_to_run(monkeypatch):
    monkeypatch.setattr(codec, "FORMAT_VERSION", 2)
    newer = codec.encode_facts([f.Clock(1)])
    monkeypatch.undo()
    with pytest.raises(LedgerCorrupt, match="version 2 of Facts is unknown to this release, which reads 1; run the"):
        codec.decode_facts(newer, where="p0-7")


def test_an_unknown_fact_is_noticed(monkeypatch):
    class Unknown(msgspec.Struct, array_like=True, tag=99):
        at: int

    with pytest.raises(LedgerCorrupt, match="p0-7: the checksum fits, but it does not hold facts"):
        codec.decode_facts(codec.encode_facts([Unknown(1)]), where="p0-7")  # type: ignore[list-item]


def test_one_kind_of_segment_is_not_read_as_another():
    epoch = codec.encode_epoch(codec.EpochRecord(leader="a", at_ms=5))
    assert codec.decode_epoch(epoch, where="p0-1") == codec.EpochRecord(leader="a", at_ms=5)
    with pytest.raises(LedgerCorrupt, match="it holds Epoch where Facts should be"):
        codec.decode_facts(epoch, where="p0-1")


@given(
    st.lists(st.integers(min_value=0, max_value=5_000), max_size=12),
    st.integers(min_value=256, max_value=3_000),
    st.booleans(),
)
async def test_a_checkpoint_comes_out_as_it_went_in_and_no_segment_is_too_large(sizes, max_bytes, compressible):
    rng = random.Random(1)
    payloads = [bytes(n) if compressible else rng.randbytes(n) for n in sizes]
    segments = [data async for data in codec.encode_checkpoint(payloads, max_bytes=max_bytes)]
    assert all(len(data) <= max_bytes for data in segments)
    named = [(f"p0-{n}", data) for n, data in enumerate(segments)]
    assert codec.decode_checkpoint(named) == payloads


async def test_small_payloads_share_a_segment():
    segments = [data async for data in codec.encode_checkpoint([b"row" * 100] * 500, max_bytes=100_000)]
    assert len(segments) == 1


async def test_a_checkpoint_that_lacks_its_last_segment_is_noticed():
    payloads = [random.Random(1).randbytes(5_000)]
    segments = [data async for data in codec.encode_checkpoint(payloads, max_bytes=1_000)]
    with pytest.raises(LedgerCorrupt, match="p0-3: the checkpoint ends within a chunk"):
        codec.decode_checkpoint([(f"p0-{n}", data) for n, data in enumerate(segments[:4])])


def test_a_header_alone_claims_its_version_and_less_than_one_claims_none():
    data = codec.encode_facts([f.Clock(5)])
    assert codec.version_of(data[: codec.HEADER_BYTES]) == codec.version_of(data) > 0
    assert codec.version_of(data[: codec.HEADER_BYTES - 1]) == 0
