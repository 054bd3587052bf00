"""`log-mel`: log mel filter-bank energies, 25 ms windows every 10 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import AudioFrontend, ReadFile, Rows, option

BINS = (40, 80, 128)
_STATISTICS = "statistics.safetensors"


class LogMel(AudioFrontend):
    """Kaldi's filter banks (Povey window, pre-emphasis 0.97, no dither) with one global mean and deviation per bin.

    Samples stay at full scale 1.0, so Kaldi's energy floor lies at -15.9, about where quiet recordings end,
    and digital silence is no outlier. The price: in quiet recordings a third of the energies lie on the floor.

    Args:
        bins: Mel bins, 40, 80 or 128.
        length: Rows the model gets; 460 are 4.6 s.
        mean: `(bins,)` global mean of each bin over a training corpus; zeros leave the energies as they are.
        std: `(bins,)` global standard deviation of each bin.
    """

    kind = "log-mel"
    hop_s = 0.010
    window_s = 0.025

    def __init__(
        self,
        bins: int = 80,
        length: int = 460,
        mean: NDArray[np.float32] | None = None,
        std: NDArray[np.float32] | None = None,
    ) -> None:
        if bins not in BINS:
            raise InputError(f"log-mel: got {bins} bins, expected one of {', '.join(map(str, BINS))}")
        self.dim = bins
        self.length = length
        self.mean = np.zeros(bins, np.float32) if mean is None else mean.astype(np.float32)
        self.std = np.ones(bins, np.float32) if std is None else std.astype(np.float32)
        if self.mean.shape != (bins,) or self.std.shape != (bins,):
            raise InputError(f"log-mel: mean {self.mean.shape} and std {self.std.shape}, expected ({bins},)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise InputError("log-mel: mean must be finite and std above 0 in every bin")

        import kaldi_native_fbank

        self._fbank = kaldi_native_fbank
        self._options = kaldi_native_fbank.FbankOptions()
        self._options.frame_opts.samp_freq = SAMPLE_RATE
        self._options.frame_opts.dither = 0.0
        self._options.mel_opts.num_bins = bins

    def energies(self, samples: Samples) -> Rows:
        """Return `(n, bins)` log energies, not normalised, for `(samples,)` float32 mono at 16 kHz.

        Raises:
            InputError: Shorter than one 25 ms window.
        """
        self.check(samples)
        fbank = self._fbank.OnlineFbank(self._options)
        fbank.accept_waveform(SAMPLE_RATE, samples)
        fbank.input_finished()
        return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], dtype=np.float32)

    def rows(self, samples: Samples) -> Rows:
        return self.normalise(self.energies(samples))

    def normalise(self, energies: Rows) -> Rows:
        """Subtract the global mean and divide by the global deviation, bin by bin."""
        normal: Rows = ((energies - self.mean) / self.std).astype(np.float32)
        return normal

    def options(self) -> dict[str, Any]:
        return {"bins": self.dim}

    def files(self) -> dict[str, bytes]:
        from safetensors.numpy import save

        return {_STATISTICS: save({"mean": self.mean, "std": self.std})}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile) -> LogMel:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            statistics = load(read(_STATISTICS))
            return cls(option(options, "bins", int), length, statistics["mean"], statistics["std"])
        except (KeyError, SafetensorError, InputError) as error:
            raise BundleError(f"log-mel: {_STATISTICS} is not usable: {error}") from error
