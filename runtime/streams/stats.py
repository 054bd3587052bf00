"""What a stream counts: events, losses, and how long each stage takes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 150.0, 200.0, 250.0, 500.0, 1e3, 2e3, 5e3, 10e3, 30e3)
"""Upper bounds of the latency histograms; a last bucket takes the rest."""

STAGES = ("vad", "asr", "answer", "latency", "callback")


@dataclass(frozen=True)
class Histogram:
    """How long something took.

    Attributes:
        counts: Per bucket of `BUCKETS_MS`, and the rest.
        sum_ms: All together.
        max_ms: The longest.
    """

    counts: tuple[int, ...]
    sum_ms: float
    max_ms: float

    @property
    def count(self) -> int:
        """Number of measurements."""
        return sum(self.counts)

    def quantile_ms(self, share: float) -> float:
        """Return an upper bound of a quantile: the bound of the bucket that it falls into, at most the longest."""
        wanted, seen = share * self.count, 0
        for count, bound in zip(self.counts, BUCKETS_MS, strict=False):
            seen += count
            if seen >= wanted and seen:
                return min(bound, self.max_ms)
        return self.max_ms


@dataclass(frozen=True)
class StreamStats:
    """A stream's counters at one moment.

    Attributes:
        audio_s: Audio received.
        lost_s: Audio lost because the buffer was full.
        overflows: Times the device said that it lost audio.
        interruptions: Times the device went away.
        utterances: Utterances cut.
        events: Final Events emitted.
        partials: Partial Events emitted.
        dropped: Utterances dropped because the device was too slow.
        failed: Utterances that the model could not answer.
        asr_late: Events without words because the recogniser was late.
        asr_failed: Events without words because it failed.
        missed_events: Events that nobody fetched in time.
        callback_errors: Exceptions of `on_event`.
        stalls: Times a stage hung for longer than `StreamOptions.stall_s`.
        stages: Milliseconds of `vad` (a frame of 32 ms), `asr` (from an utterance's end to its words), `answer` (the
            model and its features), `latency` (from an utterance's end to its Event), `callback`.
    """

    audio_s: float
    lost_s: float
    overflows: int
    interruptions: int
    utterances: int
    events: int
    partials: int
    dropped: int
    failed: int
    asr_late: int
    asr_failed: int
    missed_events: int
    callback_errors: int
    stalls: int
    stages: Mapping[str, Histogram]


class Meter:
    """Counts and measures, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._buckets = {stage: [0] * (len(BUCKETS_MS) + 1) for stage in STAGES}
        self._sums = dict.fromkeys(STAGES, 0.0)
        self._longest = dict.fromkeys(STAGES, 0.0)

    def count(self, name: str, more: int = 1) -> int:
        """Add to a counter and return it."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + more
            return self._counts[name]

    def counted(self, name: str) -> int:
        """Return a counter."""
        return self._counts.get(name, 0)

    def measured(self, stage: str, ms: float) -> None:
        """Note how long a stage took."""
        with self._lock:
            self._buckets[stage][bisect_left(BUCKETS_MS, ms)] += 1
            self._sums[stage] += ms
            self._longest[stage] = max(self._longest[stage], ms)

    def snapshot(self, audio_s: float, lost_s: float, overflows: int, interruptions: int) -> StreamStats:
        """Return everything at this moment; the arguments come from the buffer and the source."""
        with self._lock:
            names = (
                *("utterances", "events", "partials", "dropped", "failed", "asr_late", "asr_failed"),
                *("missed_events", "callback_errors", "stalls"),
            )
            return StreamStats(
                audio_s,
                lost_s,
                overflows,
                interruptions,
                **{name: self._counts.get(name, 0) for name in names},
                stages={
                    stage: Histogram(tuple(self._buckets[stage]), self._sums[stage], self._longest[stage])
                    for stage in STAGES
                },
            )
