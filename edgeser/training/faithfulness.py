"""Do the importances hold? Take away what a model says mattered, and as much of the rest, and compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, Features, TextFrontend
from edgeser.runtime.results import explain_words
from edgeser.training.features import audio_key
from edgeser.training.trained import TrainedModel

SHARE = 0.2
_BATCH = 32
Fall = dict[str, float]
"""How far the predicted class's probability falls, by what was taken away."""


@dataclass(frozen=True)
class Faithfulness:
    """How much more it costs to lose what mattered than to lose as much at random.

    Attributes:
        modality: `audio` or `text`.
        utterances: How many were measured.
        recordings: How many recordings they share; the confidence interval counts each once.
        falls: Mean fall of the predicted class's probability, by what was taken away: `important`, and the controls.
        advantage: By control, mean of `important` minus the control.
        interval: By control, the 95 % confidence interval of that mean.
    """

    modality: str
    utterances: int
    recordings: int
    falls: Mapping[str, float]
    advantage: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]

    @property
    def holds(self) -> bool:
        """Whether importance is clearly better than every control."""
        return all(low > 0 for low, _ in self.interval.values())


def measure_audio(trained: TrainedModel, utterances: Sequence[Utterance], seed: int = 1) -> list[tuple[str, Fall]]:
    """Silence a fifth of each recording, one utterance of each: the most important frames, and two controls.

    `scattered` silences as many frames drawn one by one; `moved` the important frames' own pattern, shifted in time,
    so that it breaks speech up just as much. The waveform is silenced, and all of the path runs again.

    Returns:
        For each utterance its recording and its falls.

    Raises:
        InputError: The model has no importance of audio.
    """
    frontend = trained.frontends.get("audio")
    if not isinstance(frontend, AudioFrontend) or "audio" not in trained.model.importances:
        raise InputError("faithfulness: the model has no importance of audio")

    def variants(utterance: Utterance, importance: NDArray[Any], whole: Features) -> dict[str, dict[str, Features]]:
        valid = whole.valid
        rng = np.random.default_rng((seed, valid))
        samples = load_utterance(utterance)
        count = max(1, round(SHARE * valid))
        important = np.zeros(valid, dtype=bool)
        important[np.argsort(importance[:valid], kind="stable")[-count:]] = True
        scattered = np.zeros(valid, dtype=bool)
        scattered[rng.choice(valid, count, replace=False)] = True
        masks = {
            "important": important,
            "scattered": scattered,
            "moved": np.roll(important, int(rng.integers(1, max(2, valid)))),
        }
        return {
            name: {"audio": frontend(silence(samples, whole.moments[mask], frontend.hop_s))}
            for name, mask in masks.items()
        }

    once = list({audio_key(u): u for u in utterances}.values())
    return list(_falls(trained, once, "audio", variants))


def measure_text(trained: TrainedModel, utterances: Sequence[Utterance], seed: int = 1) -> list[tuple[str, Fall]]:
    """Leave a fifth of each line's words out, at least one: the most important, and as many at `random`.

    Returns:
        For each utterance of two words or more its recording and its falls.

    Raises:
        InputError: The model has no importance of text.
    """
    frontend = trained.frontends.get("text")
    if not isinstance(frontend, TextFrontend) or "text" not in trained.model.importances:
        raise InputError("faithfulness: the model has no importance of text")

    def variants(utterance: Utterance, importance: NDArray[Any], whole: Features) -> dict[str, dict[str, Features]]:
        transcript = utterance.transcript or ""
        words = explain_words(transcript, frontend.tokens(transcript), importance)
        rng = np.random.default_rng((seed, len(words), whole.valid))
        count = max(1, round(SHARE * len(words)))
        left_out = {
            "important": np.argsort([word.importance for word in words], kind="stable")[-count:],
            "random": rng.choice(len(words), count, replace=False),
        }
        return {
            name: {"text": frontend(" ".join(w.text for i, w in enumerate(words) if i not in places))}
            for name, places in left_out.items()
        }

    spoken = [u for u in utterances if len((u.transcript or "").split()) >= 2]
    return list(_falls(trained, spoken, "text", variants))


def summarize(modality: str, falls: Sequence[tuple[str, Fall]]) -> Faithfulness:
    """Bring falls together; utterances of one recording are averaged before the interval is taken.

    Raises:
        InputError: Fewer than two recordings.
    """
    groups: dict[str, list[Fall]] = {}
    for recording, fall in falls:
        groups.setdefault(recording, []).append(fall)
    if len(groups) < 2:
        raise InputError(f"faithfulness: got {len(groups)} recordings, expected at least 2")
    names = list(falls[0][1])
    table = np.array([[np.mean([fall[name] for fall in group]) for name in names] for group in groups.values()])
    advantage, interval = {}, {}
    for column, control in enumerate(names):
        if control != "important":
            difference = table[:, names.index("important")] - table[:, column]
            mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))
            advantage[control], interval[control] = mean, (mean - 1.96 * error, mean + 1.96 * error)
    means = {name: float(table[:, column].mean()) for column, name in enumerate(names)}
    return Faithfulness(modality, len(falls), len(groups), means, advantage, interval)


def silence(samples: Samples, moments: NDArray[np.intp], hop_s: float) -> Samples:
    """Return samples with the frames at some moments set to 0; frame `i` starts at `i * hop_s`."""
    hop = round(hop_s * SAMPLE_RATE)
    quiet = samples.copy()
    for row in moments:
        quiet[row * hop : (row + 1) * hop] = 0.0
    return quiet


def of_run(run: Path) -> list[Faithfulness]:
    """Measure every importance of a run's models, each on the fold that it was not trained on.

    Raises:
        InputError: The run holds out no fold, or its models have no importance.
    """
    falls: dict[str, list[tuple[str, Fall]]] = {}
    for folder in sorted(file.parent for file in run.glob("fold-*/model.json")):
        trained = TrainedModel.load(folder)
        held_out = trained.held_out(read_corpus(trained.training["corpus"]))
        for modality, measure in (("audio", measure_audio), ("text", measure_text)):
            if held_out and modality in trained.model.importances:
                falls.setdefault(modality, []).extend(measure(trained, held_out))
        for frontend in trained.frontends.values():
            frontend.close()
    if not falls:
        raise InputError(f"{run}: holds out no fold, or its models have no importance")
    return [summarize(modality, found) for modality, found in falls.items()]


Variants = Callable[[Utterance, NDArray[Any], Features], dict[str, dict[str, Features]]]


def _falls(
    trained: TrainedModel, utterances: Sequence[Utterance], modality: str, variants: Variants
) -> Iterator[tuple[str, Fall]]:
    bar = tqdm(total=len(utterances), desc=f"faithfulness, {modality}", unit="clip", leave=False, disable=None)
    for start in range(0, len(utterances), _BATCH):
        batch = utterances[start : start + _BATCH]
        heard: dict[str, Features] = {}  # lines of one recording stand together
        whole = [_features(trained, u, heard) for u in batch]
        probabilities, importances = _predict(trained, whole, modality)
        predicted = probabilities.argmax(axis=1)
        changed = [variants(u, importances[i], whole[i][modality]) for i, u in enumerate(batch)]
        falls: list[Fall] = [{} for _ in batch]
        for name in changed[0]:
            after, _ = _predict(trained, [{**w, **c[name]} for w, c in zip(whole, changed, strict=True)], modality)
            for i, label in enumerate(predicted):
                falls[i][name] = float(probabilities[i, label] - after[i, label])
        yield from ((audio_key(u), fall) for u, fall in zip(batch, falls, strict=True))
        bar.update(len(batch))
    bar.close()


def _features(trained: TrainedModel, utterance: Utterance, heard: dict[str, Features]) -> dict[str, Features]:
    features = {}
    for name, frontend in trained.frontends.items():
        if isinstance(frontend, AudioFrontend):
            key = audio_key(utterance)
            if key not in heard:
                heard[key] = frontend(load_utterance(utterance))
            features[name] = heard[key]
        elif isinstance(frontend, TextFrontend):
            features[name] = frontend(utterance.transcript or "")
    return features


def _predict(
    trained: TrainedModel, batch: Sequence[Mapping[str, Features]], modality: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs = {}
    for name in trained.frontends:
        inputs[name] = torch.from_numpy(np.stack([features[name].values for features in batch]))
        inputs[f"{name}_length"] = torch.tensor([features[name].valid for features in batch], dtype=torch.int32)
    with torch.inference_mode():
        output = trained.model(inputs)
    return output.logits.softmax(dim=-1).numpy(), output.importance[modality].numpy()
