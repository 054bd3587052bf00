"""From utterances to what a model's graph takes, through the device's own frontends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora.utterance import Utterance
from edgeser.runtime.audio import Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, TextFrontend
from edgeser.runtime.scoring import Recording


def load_utterance(utterance: Utterance) -> Samples:
    """Read an utterance's samples, `(samples,)` float32 mono at 16 kHz.

    Raises:
        InputError: The audio is not usable; the message names the utterance.
    """
    try:
        return load_audio(utterance.audio, utterance.start_s, utterance.end_s)
    except InputError as error:
        raise InputError(f"utterance {utterance.id}: {error}") from error


def recording_of(utterance: Utterance, transcript: str | None) -> Recording:
    """Return an utterance as something to score, with these words; `None` asks the ASR."""
    # A name that two corpora give is two speakers'.
    speaker = f"{utterance.corpus}/{utterance.speaker}" if utterance.speaker else ""
    start_s, end_s = utterance.start_s, utterance.end_s
    return Recording(utterance.id, utterance.audio, transcript, utterance.emotion, start_s, end_s, speaker)


def extract_features(frontend: Frontend, utterance: Utterance) -> Features:
    """Run one utterance through a frontend; one without a transcript has no words."""
    if isinstance(frontend, AudioFrontend):
        return frontend(load_utterance(utterance))
    assert isinstance(frontend, TextFrontend)
    return frontend(utterance.transcript or "")


def stack_features(features: Mapping[str, Sequence[Features]]) -> dict[str, NDArray[Any]]:
    """Stack features, by modality, into a graph's inputs: `<name>` and `<name>_length`."""
    inputs: dict[str, NDArray[Any]] = {}
    for name, several in features.items():
        inputs[name] = np.stack([one.values for one in several])
        inputs[f"{name}_length"] = np.array([one.valid for one in several], dtype=np.int32)
    return inputs


def graph_inputs(frontends: Mapping[str, Frontend], utterances: Sequence[Utterance]) -> dict[str, NDArray[Any]]:
    """Run utterances through the frontends and stack them into the graph's inputs."""
    return stack_features({name: [extract_features(f, u) for u in utterances] for name, f in frontends.items()})
