"""The C library's locale: Qt and GTK set it for the whole process, and with it how C functions spell numbers."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import locale
from collections.abc import Iterator


@contextlib.contextmanager
def c_numbers() -> Iterator[None]:
    """Have C functions that this thread calls read and write 0.5, not 0,5; other threads keep what they have."""
    libc, plain = _plain()
    before = libc.uselocale(plain)
    try:
        yield
    finally:
        libc.uselocale(before)


@functools.cache
def _plain() -> tuple[ctypes.CDLL, int]:
    """Return the C library, and its locale `C` as an object of its own."""
    libc = ctypes.CDLL(None)
    libc.uselocale.restype = libc.newlocale.restype = ctypes.c_void_p
    libc.uselocale.argtypes = [ctypes.c_void_p]
    libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    return libc, libc.newlocale(1 << locale.LC_NUMERIC, b"C", None)
