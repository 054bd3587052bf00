"""How much of a recording is speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import Samples
from edgeser.runtime.engines import OnnxRuntimeEngine
from edgeser.runtime.vad import VAD_FRAME

THRESHOLD = 0.5
"""Probability from which on a frame is speech; the one at which a stream begins an utterance."""
MIN_FRAMES = 3
"""Frames of speech, 96 ms, under which a recording has none: a click is no voice."""

_GRAPH = "silero-vad.onnx"
_BLOCK = 1024  # frames, 33 s, that are computed together: 10 MB
_LEVEL = 0.05  # root mean square, -26 dBFS
_PEAK = 0.99
_MAX_GAIN = 1e3  # 60 dB: what is quieter than -86 dBFS is less than a step of 16 bits


class SpeechMeter:
    """Measures the share of speech in recordings, with Silero's detector. Safe to call from any thread.

    The detector is deaf to quiet voices: of RAVDESS's 560 clips of four emotions it misses 401 when they are 40 dB
    quieter. What it gets is brought to one level first, so that the answer does not depend on a recording's.

    Raises:
        EngineError: ONNX Runtime does not start.
    """

    def __init__(self) -> None:
        import edgeser

        graph = Path(edgeser.__file__).parent / "pretrained" / _GRAPH
        self._engine = OnnxRuntimeEngine(graph.read_bytes())

    def share(self, samples: Samples) -> float:
        """Return the share of frames of 32 ms that are speech, 0 to 1; 0 where they are fewer than `MIN_FRAMES`.

        Args:
            samples: `(n,)` float32, mono at 16 kHz.
        """
        spoken = self.probabilities(leveled(samples)) >= THRESHOLD
        return float(spoken.mean()) if np.count_nonzero(spoken) >= MIN_FRAMES else 0.0

    def probabilities(self, samples: Samples) -> NDArray[np.float32]:
        """Return the probability of speech in each frame, `(frames,)`; the last one is filled up with silence.

        Within 0.01 of what `SileroVad` gives from its `reset` on: that rounds what it multiplies to half precision.
        """
        frames = np.pad(samples, (0, -samples.shape[0] % VAD_FRAME)).reshape(-1, VAD_FRAME)
        blocks = [frames[start : start + _BLOCK] for start in range(0, frames.shape[0], _BLOCK)]
        found = [self._engine.run({"frames": block})["probability"] for block in blocks]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def leveled(samples: Samples) -> Samples:
    """Return samples without their offset, at -26 dBFS, or as near as their peak and a gain of 60 dB allow."""
    if not samples.shape[0]:
        return samples
    centered: Samples = samples - samples.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(centered).max())
    if peak == 0.0:
        return centered
    level = float(np.sqrt(np.mean(np.square(centered, dtype=np.float64))))
    at_level: Samples = centered * np.float32(min(_LEVEL / level, _PEAK / peak, _MAX_GAIN))
    return at_level
