"""The bytes of a segment: what the ledger's stores keep and never look into.

`ledger.log` encodes with it, `ledger.log` and `ledger.inspect` decode. Each segment stands on its own: a header names
the format, what is inside and how it is compressed, and a checksum covers all of it. The invariant: `decode_*` either
gives exactly what was encoded or raises `LedgerCorrupt` that names the segment and the fault; it never guesses.

    0  3  magic "TWL"
    3  1  version of this header
    4  1  what is inside (`_Content`)
    5  1  version of what is inside (facts: `facts.FORMAT_VERSION`)
    6  1  compression: 0 none, 1 raw deflate
    7  1  0
    8  4  length of the content before compression, big endian
   12  4  CRC-32 of the 12 bytes before and of the stored content, big endian
   16     the stored content

Deflate level 1 was measured on columnar facts of 25 to 2,500 dispatches: 7 to 10 bytes a dispatch (14 plain) at 50 to
80 MB/s of input; levels 6 and 9 take 7 to 30 times as long and save nothing.
"""

from __future__ import annotations

import asyncio
import enum
import struct
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import msgspec

from tickwheel_operator.ledger.facts import FORMAT_VERSION, Fact
from tickwheel_operator.ledger.protocol import LedgerCorrupt

__all__ = [
    "HEADER_BYTES",
    "EpochRecord",
    "decode_checkpoint",
    "decode_checkpoint_part",
    "decode_epoch",
    "decode_facts",
    "encode_checkpoint",
    "encode_epoch",
    "encode_facts",
    "version_of",
]

_MAGIC = b"TWL"
_HEADER_VERSION = 1
_EPOCH_VERSION = 1
_CHECKPOINT_VERSION = 1
_HEAD = struct.Struct(">3sBBBBxI")
_CRC = struct.Struct(">I")
_FRAME = struct.Struct(">I")

HEADER_BYTES = _HEAD.size + _CRC.size
"""What a segment has before its content."""

_STORED, _DEFLATED = 0, 1
_WORTH_DEFLATING_BYTES = 64
"""Below this, deflate's own overhead is as large as what it saves."""
_RAW_DEFLATE = -15
_MEMORY_LEVEL = 9

_SLICE_BYTES = 16 * 1024
"""A checkpoint is made and compressed in slices of this (about 1 ms each)."""
_SLICE_OVERHEAD_BYTES = 64
"""The most by which deflate makes a slice longer that does not compress, with the flush after it (15 measured)."""


class _Content(enum.IntEnum):
    EPOCH = 1
    FACTS = 2
    CHECKPOINT = 3


_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the decoder raises: text that is not UTF-8 is a ValueError of its own."""


class EpochRecord(msgspec.Struct, frozen=True):
    """What an `Epoch` segment says beside its header."""

    leader: str
    """Identity of the leader that took over, as in the Lease."""
    at_ms: int
    """Its wall clock then."""
    ledger: str = ""
    """The identity of the log: drawn by whoever began it, kept by all that came after. Tokens and epochs mean nothing
    in a log with another one."""


_encoder = msgspec.msgpack.Encoder()
_fact_decoder: msgspec.msgpack.Decoder[list[Fact]] = msgspec.msgpack.Decoder(list[Fact])
_epoch_decoder = msgspec.msgpack.Decoder(EpochRecord)


def encode_facts(facts: Sequence[Fact]) -> bytes:
    """One segment's data."""
    return _seal(_Content.FACTS, FORMAT_VERSION, _encoder.encode(facts))


def decode_facts(data: bytes, *, where: str) -> list[Fact]:
    """The facts of a segment; `where` names it in the error. Raises `LedgerCorrupt`."""
    content = _open(data, _Content.FACTS, FORMAT_VERSION, where)
    try:
        return _fact_decoder.decode(content)
    except _UNREADABLE as error:
        raise LedgerCorrupt(f"{where}: the checksum fits, but it does not hold facts: {error}") from error


def encode_epoch(record: EpochRecord) -> bytes:
    """One segment's data."""
    return _seal(_Content.EPOCH, _EPOCH_VERSION, _encoder.encode(record))


def decode_epoch(data: bytes, *, where: str) -> EpochRecord:
    """What a takeover wrote. Raises `LedgerCorrupt`."""
    content = _open(data, _Content.EPOCH, _EPOCH_VERSION, where)
    try:
        return _epoch_decoder.decode(content)
    except _UNREADABLE as error:
        raise LedgerCorrupt(f"{where}: the checksum fits, but it does not hold a takeover: {error}") from error


async def encode_checkpoint(payloads: Iterable[bytes], *, max_bytes: int, pause_s: float = 0) -> AsyncIterator[bytes]:
    """The data of a checkpoint's segments, each of at most `max_bytes`.

    The payloads become one stream, each with its length before it, that is cut where a segment is full: many small
    payloads share a segment, and a large one may span several. They are asked for one by one, with a pause after
    every slice, in which other tasks run.
    """
    compressor = _Compressor()
    for slice_ in _slices(payloads, min(_SLICE_BYTES, max_bytes // 4)):
        if compressor.size_bytes + len(slice_) + _SLICE_OVERHEAD_BYTES > max_bytes:
            yield compressor.seal()
            compressor = _Compressor()
        compressor.add(slice_)
        await asyncio.sleep(pause_s)
    yield compressor.seal()


def decode_checkpoint(segments: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """The payloads of a checkpoint from all of its segments (name and data), in order. Raises `LedgerCorrupt`."""
    stream = b"".join(decode_checkpoint_part(data, where=where) for where, data in segments)
    payloads = []
    position = 0
    while position < len(stream):
        end = position + _FRAME.size
        if end <= len(stream):
            (length,) = _FRAME.unpack_from(stream, position)
            position, end = end, end + length
        if end > len(stream):
            raise LedgerCorrupt(
                f"{segments[-1][0]}: the checkpoint ends within a chunk: {end - len(stream)} bytes are missing"
            )
        payloads.append(stream[position:end])
        position = end
    return payloads


def decode_checkpoint_part(data: bytes, *, where: str) -> bytes:
    """One segment's part of a checkpoint's stream, of no use alone: to check it. Raises `LedgerCorrupt`."""
    return _open(data, _Content.CHECKPOINT, _CHECKPOINT_VERSION, where)


def version_of(data: bytes) -> int:
    """The header version that the data claims; 0 where it is no segment's."""
    return data[len(_MAGIC)] if len(data) >= HEADER_BYTES else 0


class _Compressor:
    """Fills one segment of a checkpoint. Flushes after each slice, so that its size is known exactly."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY_LEVEL)
        self._parts: list[bytes] = []
        self.size_bytes = HEADER_BYTES
        self.raw_bytes = 0

    def add(self, raw: bytes) -> None:
        part = self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._parts.append(part)
        self.size_bytes += len(part)
        self.raw_bytes += len(raw)

    def seal(self) -> bytes:
        stored = b"".join((*self._parts, self._deflate.flush()))
        return _frame(_Content.CHECKPOINT, _CHECKPOINT_VERSION, _DEFLATED, self.raw_bytes, stored)


def _slices(payloads: Iterable[bytes], slice_bytes: int) -> Iterator[bytes]:
    """The framed stream in slices of `slice_bytes`, the last one shorter."""
    pending = bytearray()
    for payload in payloads:
        pending += _FRAME.pack(len(payload))
        for start in range(0, len(payload), slice_bytes):
            pending += payload[start : start + slice_bytes]
            while len(pending) >= slice_bytes:
                yield bytes(pending[:slice_bytes])
                del pending[:slice_bytes]
    if pending:
        yield bytes(pending)


def _seal(content: _Content, version: int, raw: bytes) -> bytes:
    if len(raw) >= _WORTH_DEFLATING_BYTES:
        deflate = zlib.compressobj(1, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY_LEVEL)
        stored = deflate.compress(raw) + deflate.flush()
        if len(stored) < len(raw):
            return _frame(content, version, _DEFLATED, len(raw), stored)
    return _frame(content, version, _STORED, len(raw), raw)


def _frame(content: _Content, version: int, compression: int, raw_bytes: int, stored: bytes) -> bytes:
    head = _HEAD.pack(_MAGIC, _HEADER_VERSION, content, version, compression, raw_bytes)
    return b"".join((head, _CRC.pack(zlib.crc32(stored, zlib.crc32(head))), stored))


def _open(data: bytes, wanted: _Content, wanted_version: int, where: str) -> bytes:
    """Check everything and give the content."""
    if len(data) < HEADER_BYTES:
        raise LedgerCorrupt(f"{where}: {len(data)} bytes are too few for a segment; it was cut off")
    magic, header_version, content, version, compression, raw_bytes = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise LedgerCorrupt(f"{where}: it does not begin with {_MAGIC!r} but with {magic!r}: this is no segment")
    if header_version != _HEADER_VERSION:
        raise LedgerCorrupt(
            f"{where}: segment format {header_version} is unknown to this release, which reads {_HEADER_VERSION}; "
            "run the release that wrote it, or a newer one"
        )
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    stored = memoryview(data)[HEADER_BYTES:]
    actual = zlib.crc32(stored, zlib.crc32(data[: _HEAD.size]))
    if crc != actual:
        raise LedgerCorrupt(
            f"{where}: the checksum is {actual:08x} but the segment says {crc:08x}: "
            f"its {len(data)} bytes were changed or cut off"
        )
    if content != wanted:
        found = _Content(content).name.title() if content in _Content._value2member_map_ else f"content {content}"
        raise LedgerCorrupt(f"{where}: it holds {found} where {wanted.name.title()} should be")
    if version != wanted_version:
        raise LedgerCorrupt(
            f"{where}: version {version} of {wanted.name.title()} is unknown to this release, "
            f"which reads {wanted_version}; run the release that wrote it, or a newer one"
        )
    if compression == _STORED:
        raw = bytes(stored)
    elif compression == _DEFLATED:
        inflate = zlib.decompressobj(_RAW_DEFLATE)
        try:
            raw = inflate.decompress(stored, raw_bytes + 1)
        except zlib.error as error:
            raise LedgerCorrupt(f"{where}: the checksum fits, but it does not inflate: {error}") from error
    else:
        raise LedgerCorrupt(f"{where}: compression {compression} is unknown to this release, which reads 0 and 1")
    if len(raw) != raw_bytes:
        raise LedgerCorrupt(f"{where}: {len(raw)} bytes came out where the segment says {raw_bytes}")
    return raw
