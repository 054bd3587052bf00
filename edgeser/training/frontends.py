"""The frontends that a run trains on, with the features of the corpus behind them."""

from __future__ import annotations

from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, LogMel, TextFrontend, read_frontend
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.glove import load_word_vectors
from edgeser.training.options import TrainOptions


def open_features(options: TrainOptions) -> dict[str, RecordingFeatures | LineFeatures]:
    """Open the frontends that a run trains on.

    Raises:
        InputError: An encoder's folder holds no frontend of its modality.
    """
    features: dict[str, RecordingFeatures | LineFeatures] = {}
    if "audio" in options.modalities:
        audio = log_mel(options) if options.audio_encoder is None else read_frontend(options.audio_encoder)
        if not isinstance(audio, AudioFrontend):
            raise InputError(f"{options.audio_encoder}: got a text frontend, expected one for audio")
        features["audio"] = RecordingFeatures(audio)
    if "text" in options.modalities:
        encoder = options.text_encoder
        text = load_word_vectors(options.word_vectors) if encoder is None else read_frontend(encoder)
        if not isinstance(text, TextFrontend):
            raise InputError(f"{options.text_encoder}: got an audio frontend, expected one for text")
        features["text"] = LineFeatures(text)
    return features


def log_mel(options: TrainOptions) -> LogMel:
    """Return the filter bank of a run's family."""
    shape = family(options.family).log_mel
    return LogMel(options.bins or shape.bins, shape.length)
