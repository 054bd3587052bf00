"""The frontends that a run trains on, with the features of the corpus behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeser.corpora import Utterance
from edgeser.corpora.checking import check_utterances, leave_out
from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, LogMel, Phonemes, TextFrontend, WordVectors, read_frontend
from edgeser.training.copies import Copy, copies
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.glove import load_word_vectors
from edgeser.training.noises import NoiseBank, read_noises
from edgeser.training.options import TrainOptions
from edgeser.training.pronunciations import load_pronunciations


def open_features(options: TrainOptions) -> dict[str, RecordingFeatures | LineFeatures]:
    """Open the frontends that a run trains on, in the order of its modalities.

    Raises:
        InputError: An encoder's folder holds no frontend of its modality, or modalities do not go together.
    """
    features: dict[str, RecordingFeatures | LineFeatures] = {}
    words: WordVectors | None = None
    if "phonemes" in options.modalities or ("text" in options.modalities and options.text_encoder is None):
        words = load_word_vectors(options.word_vectors)
    for modality in options.modalities:
        if modality == "audio":
            features[modality] = RecordingFeatures(_audio(options))
        elif modality == "text":
            features[modality] = LineFeatures(_text(options, words))
        elif modality == "phonemes":
            assert words is not None
            features[modality] = LineFeatures(_phonemes(options, words))
        elif modality == "sentence":
            features[modality] = LineFeatures(_sentence(options))
    return features


def compute_features(
    options: TrainOptions,
    utterances: Sequence[Utterance],
    features: Mapping[str, RecordingFeatures | LineFeatures],
    strict: bool | None = False,
) -> dict[str, str]:
    """Check the recordings of a corpus, and compute the features of them that are kept on disk.

    Args:
        options: What trains on them.
        utterances: All of the utterances.
        features: What `open_features` opened.
        strict: Refuse a corpus with an utterance that cannot be used; `None` leaves the judgement to the caller.

    Returns:
        By id, why an utterance cannot be used.

    Raises:
        InputError: Too many cannot be used; see `edgeser.corpora.checking`.
        EdgeSerError: There is no room for the features.
    """
    unusable: dict[str, str] = {}
    for source in features.values():
        if not isinstance(source, RecordingFeatures):
            continue
        speeds = options.recipe.augmentation(source.frontend.kind).speeds
        check = check_utterances(utterances, source.frontend.window_s * max(speeds))
        unusable |= check.unusable
        if strict is not None:
            leave_out(unusable, len(utterances), strict)
        failed = source.prepare([u for u in utterances if u.id not in unusable], speeds, check.lengths)
        unusable |= failed
        if strict is not None and failed:  # what is only found out when all of a file is read
            leave_out(unusable, len(utterances), strict)
        kept = [u for u in utterances if u.id not in unusable]
        failed = source.prepare(corpus_copies(options, kept), speeds, check.lengths)
        if failed:  # its recording is sound, so it is a file of the condition
            name, why = next(iter(failed.items()))
            raise InputError(f"copy {name}: {why}")
    return unusable


def corpus_copies(options: TrainOptions, utterances: Sequence[Utterance]) -> list[Copy]:
    """Return the recipe's copies of utterances that may train; none where a run does not hear them."""
    recipe = options.recipe
    if not recipe.copies or "audio" not in options.modalities:
        return []
    bank = NoiseBank() if options.noise is None else read_noises(options.noise, "train")
    trained = [utterance for utterance in utterances if not utterance.is_test_only]
    return copies(trained, recipe.copies, recipe.wave, bank, recipe.wave.seed)


def log_mel(options: TrainOptions) -> LogMel:
    """Return the filter bank of a run's family."""
    shape = family(options.family).log_mel
    return LogMel(options.bins or shape.bins, shape.length, hop_ms=shape.hop_ms)


def _audio(options: TrainOptions) -> AudioFrontend:
    if options.audio_encoder is None:
        return log_mel(options)
    audio = read_frontend(options.audio_encoder)
    if not isinstance(audio, AudioFrontend):
        raise InputError(f"{options.audio_encoder}: got a text frontend, expected one for audio")
    return audio


def _text(options: TrainOptions, words: WordVectors | None) -> TextFrontend:
    if options.text_encoder is None:
        assert words is not None
        return words
    if "phonemes" in options.modalities:
        raise InputError(
            f"{options.text_encoder}: a text encoder cuts words into other pieces than phonemes have, expected word "
            "vectors: leave --text-encoder out"
        )
    return _text_frontend(options.text_encoder)


def _phonemes(options: TrainOptions, words: WordVectors) -> Phonemes:
    return load_pronunciations(words.vocabulary, options.pronunciations, words.length)


def _sentence(options: TrainOptions) -> TextFrontend:
    """Return an encoder with one row for the whole line."""
    how = "run `edgeser export-encoder MODEL --pool start -o DIR` and give --sentence-encoder DIR"
    if options.sentence_encoder is None:
        raise InputError(f"sentence: got no encoder, {options.family} takes one row for the whole line: {how}")
    sentence = _text_frontend(options.sentence_encoder)
    if sentence.length != 1:
        raise InputError(f"{options.sentence_encoder}: gives {sentence.length} rows, expected 1 for a line: {how}")
    return sentence


def _text_frontend(folder: Path) -> TextFrontend:
    frontend = read_frontend(folder)
    if not isinstance(frontend, TextFrontend):
        raise InputError(f"{folder}: got an audio frontend, expected one for text")
    return frontend
