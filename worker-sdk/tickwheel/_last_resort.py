"""Ends the process when no Python code gets its turn: C code holds the interpreter, so no thread of Python can do it.

`_watchdog` winds it up every second. A pause of the process (SIGSTOP, a frozen container, a machine that stood still)
lets time pass in which nothing could be wound up, and must not count as a held interpreter. So there are two stages,
neither of which needs the interpreter: a timer of the kernel, and an alarm that only its expiry sets. After a pause the
timer has expired, but there are seconds left until the alarm, in which the watchdog has its turn and calls it off. The
alarm writes the stacks of all threads and ends the process, also where it is the first one of a container, which no
signal's default action ends.

Linux on 64 bits, by functions of libc; elsewhere a timer of `faulthandler`, to which a pause is the same.
"""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import sys
from typing import Any

__all__ = ["STATUS", "LastResort"]

STATUS = int(signal.SIGALRM) if hasattr(signal, "SIGALRM") else 1
"""The status with which the process ends: an exit, not a death by the signal."""
_TURN_SECONDS = 5  # from the timer to the alarm, whole seconds: how long Python code may take for its turn
_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2


class _Event(ctypes.Structure):
    """`struct sigevent` of glibc and musl: call `function(value)` in a thread of its own."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("rest", ctypes.c_char * 32),
    ]


class _Setting(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class LastResort:
    """Wind it up again and again; else it ends the process. All methods are called in one thread."""

    def __init__(self) -> None:
        self._libc: Any = None
        self._timer = ctypes.c_void_p()
        self._before: int | None = None
        """The handler of SIGALRM that was there."""
        if sys.platform == "linux" and sys.maxsize > 2**32:
            self._libc = _libc_with_timers()
        if self._libc is not None:
            self._make()

    def wind_up(self, seconds: float) -> None:
        """End the process unless this is called again, or `stop`, within so many seconds (at least)."""
        if self._libc is None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)
            return
        self._set(seconds)
        self._libc.alarm(0)  # after the timer: it cannot set one any more

    def stop(self) -> None:
        """Never mind."""
        if self._libc is None:
            faulthandler.cancel_dump_traceback_later()
            return
        self._libc.timer_delete(self._timer)
        self._libc.alarm(0)
        faulthandler.unregister(signal.SIGALRM)
        self._libc.signal(int(signal.SIGALRM), self._before)

    def _make(self) -> None:
        libc = self._libc
        event = _Event(value=_TURN_SECONDS, notify=_SIGEV_THREAD, function=_address(libc.alarm))
        if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
            self._libc = None
            return
        # The alarm first writes the stacks, then calls the handler of before, with the number of the signal: `_exit`.
        self._before = libc.signal(int(signal.SIGALRM), _address(libc._exit))
        faulthandler.register(signal.SIGALRM, file=2, all_threads=True, chain=True)

    def _set(self, seconds: float) -> None:
        whole = int(seconds)
        setting = _Setting(first_s=whole, first_ns=max(1, int((seconds - whole) * 1e9)))
        self._libc.timer_settime(self._timer, 0, ctypes.byref(setting), None)


def _libc_with_timers() -> Any:
    """None where it has none."""
    for name in (None, "librt.so.1"):  # before glibc 2.34 they were a library of their own
        try:
            libc = ctypes.CDLL(name)
            libc.signal.restype = ctypes.c_void_p
            libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
            libc.alarm.argtypes = [ctypes.c_uint]
            libc.timer_create.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
            libc.timer_settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
            libc.timer_delete.argtypes = [ctypes.c_void_p]
        except (OSError, AttributeError):
            continue
        return libc
    return None


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value
