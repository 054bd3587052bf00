"""What every frontend is: raw input in, a fixed number of feature rows out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.engines.base import Engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.statistics import Rows, Statistics

ReadFile = Callable[[str], bytes]
"""Gives the content of one of a frontend's own files, by its name."""
OpenGraph = Callable[[bytes], Engine]
"""Opens an encoder's graph with the engine and threads that its user chose."""


@dataclass(frozen=True)
class Features:
    """The rows a model gets for one modality of one utterance.

    Attributes:
        values: `(length, dim)` float32; rows past `valid` are zero.
        valid: How many leading rows come from the input, 0 to `length`.
        total: How many rows the input had before it was cropped to `length`; where a row stands for a whole line, the
            tokens that were too many for it count too.
        places: `(valid,)`, which row of the input each is, where pauses were left out; `None` for one after another.
        hidden: `(rows, width)` float32, the encoder's last state over the window that it ran over, padding included,
            where it gives one to the bundle's recogniser.
    """

    values: Rows
    valid: int
    total: int
    places: NDArray[np.intp] | None = None
    hidden: Rows | None = None

    @property
    def moments(self) -> NDArray[np.intp]:
        """`(valid,)`, which row of the input each valid row is."""
        return np.arange(self.valid) if self.places is None else self.places

    def mean(self) -> NDArray[np.float64] | None:
        """Return the mean over the valid rows, `(dim,)`; `None` where there are none."""
        return self.values[: self.valid].mean(axis=0, dtype=np.float64) if self.valid else None

    def without(self, shift: Rows) -> Features:
        """Return the same with `(dim,)` taken out of every valid row; padding stays zero."""
        values = self.values.copy()
        values[: self.valid] -= shift
        return replace(self, values=values)


def fit_length(rows: Rows, length: int) -> Features:
    """Pad `(n, dim)` rows with zero rows, or keep the first `length` of them."""
    total = rows.shape[0]
    valid = min(total, length)
    values = np.zeros((length, rows.shape[1]), dtype=np.float32)
    values[:valid] = rows[:valid]
    return Features(values, valid, total)


@dataclass(frozen=True)
class Extracted:
    """What an audio frontend makes of samples.

    Attributes:
        rows: `(n, dim)` float32, not normalised, without padding.
        places: See `Features`.
        hidden: See `Features`.
    """

    rows: Rows
    places: NDArray[np.intp] | None = None
    hidden: Rows | None = None


class Frontend(ABC):
    """Common part of audio and text frontends.

    Attributes:
        kind: The name in a bundle's manifest, for example `log-mel`.
        length: Rows the model gets.
        dim: Width of a row.
    """

    kind: ClassVar[str]
    length: int
    dim: int

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return what the manifest keeps of this frontend beside `kind`: plain JSON values."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return what the bundle keeps of this frontend as files, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> Frontend:
        """Make the frontend again from what `options` and `files` gave."""

    def close(self) -> None:  # noqa: B027  (most frontends hold nothing)
        """Free what the frontend holds."""


class AudioFrontend(Frontend):
    """Samples to rows, normalised by a training corpus's statistics.

    Attributes:
        hop_s: Seconds from one row to the next.
        window_s: Seconds that one row stands for.
        statistics: What rows are normalised by.
    """

    hop_s: float
    window_s: float
    statistics: Statistics

    @abstractmethod
    def extract(self, samples: Samples) -> Rows:
        """Return `(n, dim)` float32 rows, not normalised, for `(samples,)` float32 mono at 16 kHz, without padding.

        Raises:
            InputError: Shorter than one window.
        """

    def extract_all(self, samples: Samples) -> Extracted:
        """Return what `extract` gives, and what else is known of it."""
        return Extracted(self.extract(samples))

    @abstractmethod
    def with_statistics(self, statistics: Statistics) -> AudioFrontend:
        """Return the same frontend with other statistics."""

    def rows(self, samples: Samples) -> Rows:
        """Return normalised rows `(n, dim)`, without padding."""
        return self.statistics.normalise(self.extract(samples))

    def check(self, samples: Samples) -> None:
        """Raise `InputError` when samples are shorter than one window."""
        shortest = self.samples_for(1)
        if samples.shape[0] < shortest:
            raise InputError(
                f"audio: got {samples.shape[0]} samples ({samples.shape[0] / SAMPLE_RATE * 1e3:.1f} ms), "
                f"expected at least {shortest} ({self.window_s * 1e3:.0f} ms)"
            )

    def __call__(self, samples: Samples) -> Features:
        """Return the fixed-length features of `(samples,)` float32 mono at 16 kHz."""
        heard = samples[: self.samples_for(self.length)]
        extracted = self.extract_all(heard)
        features = fit_length(self.statistics.normalise(extracted.rows), self.length)
        total = 1 + (samples.shape[0] - self.samples_for(1)) // round(self.hop_s * SAMPLE_RATE)
        return replace(features, total=total, places=extracted.places, hidden=extracted.hidden)

    def samples_for(self, rows: int) -> int:
        """Samples at 16 kHz that give at least `rows` rows, so that no more is computed than is used."""
        return round(((rows - 1) * self.hop_s + self.window_s) * SAMPLE_RATE)


class TextFrontend(Frontend):
    """A transcript to rows."""

    @property
    def window(self) -> int:
        """Tokens that are read at most; as many as there are rows, where each gives one."""
        return self.length

    @abstractmethod
    def tokens(self, transcript: str) -> list[Token]:
        """Cut a transcript into the tokens that become rows."""

    @abstractmethod
    def rows(self, tokens: list[Token]) -> Rows:
        """Return `(n, dim)` float32 rows for at most `window` tokens: one for each, or one for all of them together."""

    def __call__(self, transcript: str) -> Features:
        """Return the fixed-length features of a transcript; an empty one has no valid rows."""
        return self.features(self.tokens(transcript))

    def features(self, tokens: list[Token]) -> Features:
        """Return the fixed-length features of a transcript that is cut already."""
        features = fit_length(self.rows(tokens[: self.window]), self.length)
        return replace(features, total=features.total + max(0, len(tokens) - self.window))


@dataclass(frozen=True)
class Token:
    """A token and where it stands in its transcript: `transcript[start:end]`."""

    text: str
    start: int
    end: int


def option(options: Mapping[str, Any], name: str, kind: type[int] | type[float] | type[str]) -> Any:
    """Take one frontend option out of a manifest, with a clear error when it is missing or of another type."""
    value = options.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"frontend option {name!r}: got {value!r}, expected {kind.__name__}")
    return value
