"""Samples of any type to float32 at full scale 1.0, and the types that do not tell their scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

_FLOAT_LIMIT = 16.0  # a float signal on the int16 scale peaks in the hundreds or thousands
_INT24 = 1 << 23
_BYTES = 800  # fewer say nothing of how they are spread
# Of 505 recordings as 8-bit audio none comes near either limit before it is clipped by 6 dB; as bytes of 16-bit audio
# all speech but one recording in 203 goes beyond one of them, at any level that is not clipped.
_FAR_SHARE = 0.9
_FAR_DIFFERENCE = 0.25


def to_float(samples: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scale PCM of any width to float32 at full scale 1.0 (int16 / 32768 and its like).

    Raises:
        InputError: Empty, not finite, of another type, or floats on an integer scale.
    """
    if samples.size == 0:
        raise InputError("audio: got no samples, expected at least one frame (25 ms)")
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128.0) / 128.0).astype(np.float32)
    if samples.dtype in (np.int16, np.int32):
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples.astype(np.float64) / full_scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise InputError(f"audio: got {samples.dtype}, expected uint8, int16, int32 or floats: convert first")
    floats = samples.astype(np.float32)
    if not np.isfinite(floats).all():
        raise InputError("audio: got NaN or infinity among the samples: repair the recording first")
    peak = float(np.abs(floats).max())
    if peak > _FLOAT_LIMIT:
        raise InputError(f"audio: got floats up to {peak:.0f}, expected full scale 1.0: divide 16-bit values by 32768")
    return floats


def check_scale(samples: NDArray[np.generic]) -> None:
    """Refuse a whole recording whose type does not tell its scale.

    int32 holds 16-bit values, 24-bit values at either end, and 32-bit ones. It is taken for what it says when it goes
    beyond 24 bits, when its lowest 8 bits are empty (24 bits at the upper end, however quiet), and when it is silent.
    uint8 holds 8-bit audio around 128, and the bytes of 16-bit audio, every other of which is near 0 or 255 then. Of
    int32 a chunk of a stream is too short to tell: see `check_bytes`.

    Raises:
        InputError: int32 within 24 bits, or uint8 that is spread like the bytes of wider samples.
    """
    if samples.dtype == np.int32:
        values = samples.astype(np.int64)
        peak = int(np.abs(values).max(initial=0))
        if 0 < peak <= _INT24 and (values & 0xFF).any():
            width, shift = (16, 16) if peak <= 1 << 16 else (24, 8)
            raise InputError(
                f"audio: got int32 up to {peak:,}, expected full scale 2,147,483,648: shift {width}-bit values left by "
                f"{shift}, or give floats at full scale 1.0"
            )
    check_bytes(samples)


def check_bytes(samples: NDArray[np.generic]) -> None:
    """Refuse uint8 that is spread like the bytes of wider samples; of a chunk of a stream too, where it has 800.

    Raises:
        InputError: It is.
    """
    if samples.dtype == np.uint8 and samples.size >= _BYTES:
        values = samples.astype(np.uint8, copy=False)
        far = (values < 64) | (values >= 192)  # beyond half of the full scale, in 8 bits around 128
        shares = [float(far[i::width].mean()) for width in (2, 3) for i in range(width)]
        if max(shares) > _FAR_SHARE or abs(shares[0] - shares[1]) > _FAR_DIFFERENCE:
            raise InputError(
                "audio: got uint8 that is not spread like 8-bit audio around 128, but like the bytes of wider samples: "
                "give those, for example numpy.frombuffer(data, '<i2')"
            )
