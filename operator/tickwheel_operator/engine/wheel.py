"""The timing wheel: a million armed timers, exact to the millisecond, in two steps and three bitmaps.

The engine arms one timer for each group of tasks with the same trigger, and for leases, retries and
timeouts; its host sleeps until `next_occupied` and then calls `advance`. The wheel reads no clock.

Slots are 1,024 ms wide and exist only while they hold timers. A slot is a ring of timers, linked through
the timers themselves, so that arming and cancelling touch neighbours only. When a slot comes first it is
opened: its timers are dealt out, once, to rings of one millisecond each. Above the slots stand three
levels of bitmaps (17 minutes, 12 days, 35 years), one bit for each occupied child, in which the first
occupied slot is found by a few bit operations, however far away it is and in either direction of time.
A classical wheel moves a timer down once a level and can only look forward; this one moves it once, has no
current slot, and so a clock that jumps by days or steps back is no special case.

A heap of the standard library arms faster, but keeps what was cancelled, takes 1.6 times the memory and fires
4 times slower (benchmarks/timers/README.md has the figures).
Invariant: a bit is set exactly when its child holds an armed timer, and a ring is in order of insertion.
"""

from typing import Any

__all__ = ["Timer", "TimingWheel"]

_BITS = 10
_CHILDREN = (1 << _BITS) - 1


class Timer:
    """An armed timer: the handle to cancel it, and what `advance` returns when it is due."""

    __slots__ = ("_next", "_previous", "at_ms", "payload")

    # Four slots make 64 bytes, a size class of CPython's allocator; a fifth would cost 16 bytes more.
    def __init__(self, at_ms: int, payload: Any) -> None:
        self.at_ms = at_ms
        self.payload = payload
        self._next: Timer | None = self
        self._previous: Timer | None = self

    @property
    def armed(self) -> bool:
        """Whether the timer waits in a wheel: it was neither cancelled nor returned as due."""
        return self._next is not None

    def __repr__(self) -> str:
        return f"<Timer {'armed' if self.armed else 'off'} at {self.at_ms} ms: {self.payload!r}>"


class _OpenSlot:
    """A slot whose timers are dealt out to milliseconds."""

    __slots__ = ("occupied", "rings")

    def __init__(self) -> None:
        self.occupied = 0
        self.rings: dict[int, Timer] = {}


class TimingWheel:
    """Timers by instant. Not for several threads.

    Parameters
    ----------
    start_ms
        The first value of `now_ms`, in milliseconds since the Unix epoch. Timers may be armed at any
        instant, before it as well; those are due at once.
    """

    __slots__ = ("_count", "_days", "_quarters", "_slots", "_soonest_ms", "_spans", "now_ms")

    def __init__(self, start_ms: int = 0) -> None:
        self.now_ms = start_ms
        """The latest instant that `advance` was given; it never goes back."""
        self._count = 0
        self._soonest_ms: int | None = None
        """Of the earliest armed timer, where that is known: it is asked for with every command, and seldom changes."""
        self._slots: dict[int, Timer | _OpenSlot] = {}
        # Bitmaps of children, each under the number of its own slot at that level. Spans are 35 years, so
        # there is one of them, two at times, and looking through their numbers is no search.
        self._quarters: dict[int, int] = {}
        self._days: dict[int, int] = {}
        self._spans: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many timers are armed."""
        return self._count

    def insert(self, at_ms: int, payload: Any) -> Timer:
        """Arm a timer for an instant, in milliseconds since the Unix epoch.

        Timers of the same instant are due in the order in which they were armed.
        """
        timer = Timer(at_ms, payload)
        self.arm(timer, at_ms)
        return timer

    def arm(self, timer: Timer, at_ms: int) -> None:
        """Arm a timer that is not armed, anew or for the first time: one that is part of another object."""
        timer.at_ms = at_ms
        timer._next = timer._previous = timer
        number = at_ms >> _BITS
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = timer
            self._mark(number)
        elif isinstance(slot, Timer):
            _append(slot, timer)
        else:
            _deal(slot, timer)
        if not self._count or (self._soonest_ms is not None and at_ms < self._soonest_ms):
            self._soonest_ms = at_ms
        self._count += 1

    def cancel(self, timer: Timer) -> bool:
        """Disarm a timer of this wheel. Return whether it was armed; one that is not is left alone."""
        following = timer._next
        previous = timer._previous
        if following is None or previous is None:
            return False
        at_ms = timer.at_ms
        number = at_ms >> _BITS
        slot = self._slots[number]
        if isinstance(slot, Timer):
            if following is timer:
                del self._slots[number]
                self._unmark(number)
            elif slot is timer:
                self._slots[number] = following
        else:
            offset = at_ms & _CHILDREN
            if following is timer:
                del slot.rings[offset]
                slot.occupied ^= 1 << offset
                if not slot.occupied:
                    del self._slots[number]
                    self._unmark(number)
            elif slot.rings[offset] is timer:
                slot.rings[offset] = following
        previous._next = following
        following._previous = previous
        timer._next = timer._previous = None
        self._count -= 1
        if at_ms == self._soonest_ms:
            self._soonest_ms = None
        return True

    def next_occupied(self) -> int | None:
        """Return the instant of the earliest armed timer, exactly, or `None` if no timer is armed."""
        if not self._count:
            return None
        if self._soonest_ms is None:
            number = self._first_slot()
            self._soonest_ms = number << _BITS | _lowest(self._open(number).occupied)
        return self._soonest_ms

    def advance(self, now_ms: int, *, limit: int | None = None) -> list[Timer]:
        """Disarm and return the timers that are due at `now_ms`, in order of instant, then of insertion.

        Parameters
        ----------
        now_ms
            Milliseconds since the Unix epoch. Earlier than last time is allowed: what was due then is
            gone, and what is still armed waits for its instant.
        limit
            Return at most so many, so that the caller can do other work between batches; the rest is
            returned by the next calls. `None` for all.
        """
        if now_ms > self.now_ms:
            self.now_ms = now_ms
        if self._soonest_ms is not None and self._soonest_ms > now_ms:
            return []
        self._soonest_ms = None
        room = self._count if limit is None else min(limit, self._count)
        due: list[Timer] = []
        while room > 0:
            number = self._first_slot()
            if number << _BITS > now_ms:
                break
            slot = self._open(number)
            while room > 0 and slot.occupied:
                offset = _lowest(slot.occupied)
                if number << _BITS | offset > now_ms:
                    room = 0
                    break
                room -= self._take(slot, offset, room, due)
            if not slot.occupied:
                del self._slots[number]
                self._unmark(number)
        self._count -= len(due)
        return due

    def _take(self, slot: _OpenSlot, offset: int, room: int, due: list[Timer]) -> int:
        """Move up to `room` timers of one millisecond to `due`. Return how many were moved."""
        first = slot.rings[offset]
        last = first._previous
        timer: Timer | None = first
        taken = 0
        while timer is not None and taken < room:
            due.append(timer)
            taken += 1
            following = timer._next
            timer._next = timer._previous = None
            timer = None if timer is last else following
        if timer is None or last is None:
            del slot.rings[offset]
            slot.occupied ^= 1 << offset
        else:
            slot.rings[offset] = timer
            timer._previous = last
            last._next = timer
        return taken

    def _open(self, number: int) -> _OpenSlot:
        """Return the slot of this number with its timers dealt out to milliseconds."""
        slot = self._slots[number]
        if not isinstance(slot, Timer):
            return slot
        opened: _OpenSlot = _OpenSlot()
        last = slot._previous
        timer: Timer | None = slot
        while timer is not None:
            following = None if timer is last else timer._next
            timer._next = timer._previous = timer
            _deal(opened, timer)
            timer = following
        self._slots[number] = opened
        return opened

    def _first_slot(self) -> int:
        """Return the number of the earliest slot; the wheel must hold a timer."""
        number = min(self._spans)
        number = number << _BITS | _lowest(self._spans[number])
        number = number << _BITS | _lowest(self._days[number])
        return number << _BITS | _lowest(self._quarters[number])

    def _mark(self, number: int) -> None:
        """Set the bits that lead to a slot which has just become occupied."""
        for level in (self._quarters, self._days, self._spans):
            parent = number >> _BITS
            children = level.get(parent, 0)
            level[parent] = children | 1 << (number & _CHILDREN)
            if children:
                return
            number = parent

    def _unmark(self, number: int) -> None:
        """Clear the bits that led to a slot which has just become empty."""
        for level in (self._quarters, self._days, self._spans):
            parent = number >> _BITS
            children = level[parent] ^ 1 << (number & _CHILDREN)
            if children:
                level[parent] = children
                return
            del level[parent]
            number = parent


def _append(first: Timer, timer: Timer) -> None:
    """Put a timer at the end of the ring that `first` begins."""
    last = first._previous
    timer._previous = last
    timer._next = first
    first._previous = timer
    if last is not None:
        last._next = timer


def _deal(slot: _OpenSlot, timer: Timer) -> None:
    """Put a timer, its own ring so far, at the end of the ring of its millisecond."""
    offset = timer.at_ms & _CHILDREN
    first = slot.rings.get(offset)
    if first is None:
        slot.rings[offset] = timer
        slot.occupied |= 1 << offset
    else:
        _append(first, timer)


def _lowest(bitmap: int) -> int:
    return (bitmap & -bitmap).bit_length() - 1
