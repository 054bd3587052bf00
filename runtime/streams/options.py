"""What can be set about a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeser.runtime.confidence import check_share
from edgeser.runtime.errors import InputError
from edgeser.runtime.normalization import check_normalize
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.segmenting import SegmentOptions


@dataclass(frozen=True)
class StreamOptions:
    """How a stream cuts, waits and drops.

    Attributes:
        segment: When an utterance begins and ends.
        partial: Also emit rolling estimates while someone speaks.
        partial_every_s: How often, in seconds of speech.
        asr_deadline_s: How long after an utterance's end its words are waited for, where the source is live.
        buffer_s: Audio that waits for the voice detector at most; then the oldest is lost.
        max_utterances: Utterances that wait for the model at most; then the oldest is dropped.
        max_events: Events that wait to be fetched at most; then the oldest is missed.
        stall_s: How long one call of a stage may take before it counts as hanging.
        normalize: `run` takes the mean of what the stream has heard so far out of the audio's rows, `none` nothing;
            `None` is `none`, and with a state `run`.
        state: What was heard before the stream, which goes on with a copy of its own; see the stream's `state`.
        answered: The share of utterances that is to be answered; see `Runtime.recognize`.
    """

    segment: SegmentOptions = field(default_factory=SegmentOptions)
    partial: bool = False
    partial_every_s: float = 0.5
    asr_deadline_s: float = 3.0
    buffer_s: float = 30.0
    max_utterances: int = 8
    max_events: int = 256
    stall_s: float = 30.0
    normalize: str | None = None
    state: RunningMean | None = None
    answered: float = 1.0

    def __post_init__(self) -> None:
        check_normalize(self.normalize, self.state)
        check_share(self.answered)
        for name, low, high in (
            ("partial_every_s", 0.1, 60.0),
            ("asr_deadline_s", 0.0, 600.0),
            ("buffer_s", 1.0, 3600.0),
            ("max_utterances", 1, 10_000),
            ("max_events", 1, 1_000_000),
            ("stall_s", 0.1, 3600.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: got {value}, expected {low} to {high}")
