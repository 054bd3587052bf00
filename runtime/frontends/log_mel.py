"""`log-mel`: log mel filter-bank energies, 25 ms windows, by default every 10 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import AudioFrontend, OpenGraph, ReadFile, option
from edgeser.runtime.frontends.statistics import STATISTICS, Rows, Statistics

BINS = (40, 80, 128)
HOP_MS = 10
_WINDOW_MS = 25
_WINDOW = SAMPLE_RATE * _WINDOW_MS // 1000
_FFT = 512
_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = float(np.finfo(np.float32).eps)
_BLOCK = 128  # windows; always as many in one product, so that a row does not depend on how many come after it


class LogMel(AudioFrontend):
    """Kaldi's filter banks (Povey window, pre-emphasis 0.97, no dither) with one global mean and deviation per bin.

    Samples stay at full scale 1.0, so Kaldi's energy floor lies at -15.9, about where quiet recordings end,
    and digital silence is no outlier. The price: in quiet recordings a third of the energies lie on the floor.
    The fourth of 128 bins lies between two lines of the spectrum and is always there, as it was in Kaldi's.

    kaldi-native-fbank computes the same to 1e-3, but from 1.23 on it refuses 128 bins, and before it takes samples of
    any rate for what it was set to; this needs neither.

    Args:
        bins: Mel bins, 40, 80 or 128.
        length: Rows the model gets; 460 are 4.6 s where the hop is 10 ms.
        statistics: Mean and deviation of each bin over a training corpus; `None` leaves the energies as they are.
        hop_ms: Milliseconds from one window to the next, at most the window's 25.
    """

    kind = "log-mel"
    window_s = _WINDOW_MS / 1e3

    def __init__(
        self, bins: int = 80, length: int = 460, statistics: Statistics | None = None, hop_ms: int = HOP_MS
    ) -> None:
        if bins not in BINS:
            raise InputError(f"log-mel: got {bins} bins, expected one of {', '.join(map(str, BINS))}")
        if not 1 <= hop_ms <= 1e3 * self.window_s:
            raise InputError(f"log-mel: got a hop of {hop_ms} ms, expected 1 to {1e3 * self.window_s:.0f}")
        self.dim = bins
        self.length = length
        self.hop_ms = hop_ms
        self.hop_s = hop_ms / 1e3
        self.statistics = statistics or Statistics.none(bins)
        self.statistics.check(bins)
        self._triangles = _triangles(bins)
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / (_WINDOW - 1))) ** 0.85  # Povey's

    def extract(self, samples: Samples) -> Rows:
        """Return `(n, bins)` log energies, not normalised, for `(samples,)` float32 mono at 16 kHz.

        Raises:
            InputError: Shorter than one 25 ms window.
        """
        self.check(samples)
        hop = SAMPLE_RATE * self.hop_ms // 1000
        count = 1 + (samples.shape[0] - _WINDOW) // hop
        blocks = -(-count // _BLOCK)
        padded = np.zeros((blocks * _BLOCK - 1) * hop + _WINDOW, dtype=np.float32)
        used = (count - 1) * hop + _WINDOW
        padded[:used] = samples[:used]
        windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop]
        rows = [self._energies(windows[i * _BLOCK : (i + 1) * _BLOCK]) for i in range(blocks)]
        return np.concatenate(rows)[:count]

    def _energies(self, windows: Samples) -> Rows:
        """Return `(n, bins)` log energies of `(n, 400)` samples."""
        centred = windows - windows.mean(axis=1, keepdims=True, dtype=np.float64)
        before = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
        spectrum = np.fft.rfft((centred - _PRE_EMPHASIS * before) * self._window, _FFT)[:, :-1]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        energies: Rows = np.log(np.maximum(power @ self._triangles, _FLOOR)).astype(np.float32)
        return energies

    def with_statistics(self, statistics: Statistics) -> LogMel:
        return LogMel(self.dim, self.length, statistics, self.hop_ms)

    def options(self) -> dict[str, Any]:
        return {"bins": self.dim, "hop_ms": self.hop_ms}

    def files(self) -> dict[str, bytes]:
        return {STATISTICS: self.statistics.to_bytes()}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> LogMel:
        try:
            hop_ms = option({"hop_ms": HOP_MS, **options}, "hop_ms", int)  # bundles from before it was kept have none
            return cls(option(options, "bins", int), length, Statistics.from_bytes(read(STATISTICS)), hop_ms)
        except InputError as error:
            raise BundleError(f"log-mel: {STATISTICS} is not usable: {error}") from error


def _triangles(bins: int) -> NDArray[np.float64]:
    """Return what each of the `(lines, bins)` adds: triangles, evenly spaced and linear in mel, from 20 Hz to 8 kHz."""
    lines = _mel(np.arange(_FFT // 2) * SAMPLE_RATE / _FFT)[:, None]
    lowest, highest = _mel(np.array([_LOWEST_HZ, SAMPLE_RATE / 2]))
    edges = np.linspace(lowest, highest, bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles: NDArray[np.float64] = np.minimum((lines - left) / (centre - left), (right - lines) / (right - centre))
    return np.maximum(triangles, 0.0)


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    mel: NDArray[np.float64] = 1127.0 * np.log1p(hz / 700.0)
    return mel
