"""`log-mel`: log mel filter-bank energies, 25 ms windows, by default every 10 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import AudioFrontend, OpenGraph, ReadFile, option
from edgeser.runtime.frontends.statistics import STATISTICS, Rows, Statistics

BINS = (40, 80, 128)
HOP_MS = 10


class LogMel(AudioFrontend):
    """Kaldi's filter banks (Povey window, pre-emphasis 0.97, no dither) with one global mean and deviation per bin.

    Samples stay at full scale 1.0, so Kaldi's energy floor lies at -15.9, about where quiet recordings end,
    and digital silence is no outlier. The price: in quiet recordings a third of the energies lie on the floor.

    Args:
        bins: Mel bins, 40, 80 or 128.
        length: Rows the model gets; 460 are 4.6 s where the hop is 10 ms.
        statistics: Mean and deviation of each bin over a training corpus; `None` leaves the energies as they are.
        hop_ms: Milliseconds from one window to the next, at most the window's 25.
    """

    kind = "log-mel"
    window_s = 0.025

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

        import kaldi_native_fbank

        self._fbank = kaldi_native_fbank
        self._options = kaldi_native_fbank.FbankOptions()
        self._options.frame_opts.samp_freq = SAMPLE_RATE
        self._options.frame_opts.frame_shift_ms = float(hop_ms)
        self._options.frame_opts.dither = 0.0
        self._options.mel_opts.num_bins = bins

    def extract(self, samples: Samples) -> Rows:
        """Return `(n, bins)` log energies, not normalised, for `(samples,)` float32 mono at 16 kHz.

        Raises:
            InputError: Shorter than one 25 ms window.
        """
        self.check(samples)
        fbank = self._fbank.OnlineFbank(self._options)
        fbank.accept_waveform(SAMPLE_RATE, samples)
        fbank.input_finished()
        return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], dtype=np.float32)

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
