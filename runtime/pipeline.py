"""From samples and words to an answer: frontends, the model, and what its importances say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.adaptation import Adaptation
from edgeser.runtime.asr import Asr, NoAsr, RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.confidence import Confidence
from edgeser.runtime.engines import Engine
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, TextFrontend, Token
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.labels import NO_SPEECH, UNSURE
from edgeser.runtime.results import Result, Span, Timings, explain_audio, explain_words

_WORDS = ("text", "phonemes")  # modalities with a row for each word, those with the better importances first


@dataclass(frozen=True)
class Evidence:
    """What is known of an utterance beside its samples.

    Attributes:
        transcript: What was said, as far as it is known; `None` where the recogniser is to be asked.
        recognized: The recogniser's words.
        is_doubtful: Whether it may have heard words, but was not sure of them.
        speech_share: Share of the analysed audio that is speech, 0 to 1.
        asr_ms: Time that the recogniser took.
        vad_ms: Time that the voice detector took.
    """

    transcript: str | None = ""
    recognized: Sequence[RecognizedWord] = ()
    is_doubtful: bool = False
    speech_share: float = 0.0
    asr_ms: float = 0.0
    vad_ms: float = 0.0


@dataclass(frozen=True)
class Heard:
    """One utterance on its way to the engine.

    Attributes:
        evidence: What is known of it.
        duration_s: Length of the audio.
        features: By modality; none where no speech and no words are there to be answered.
        tokens: The words as the modality cuts them whose importance is shown; see `Pipeline.highlighted`.
        audio_ms: Time that the audio's frontend took.
        text_ms: Time that all frontends of the transcript took.
        mean: Of the speech's standardised rows, `(dim,)`, nothing taken out of them; `None` where something was not to
            be taken out of them, and where there is no speech, which no running mean may count.
        is_cold: Whether nothing was heard before: nothing was taken out of the rows.
    """

    evidence: Evidence
    duration_s: float
    features: Mapping[str, Features]
    tokens: Sequence[Token] = ()
    audio_ms: float = 0.0
    text_ms: float = 0.0
    mean: NDArray[np.float64] | None = None
    is_cold: bool = True


class Pipeline:
    """Runs frontends and the model, and explains what came out. Safe to call from any thread.

    Args:
        engine: Runs the model.
        frontends: By modality, opened.
        labels: Emotions that are answered, in the order of the model's classes.
        adaptation: Corrects the logits for one user's voice. What mattered of audio and words is the graph's to say: it
            knows nothing of the correction, to which every moment of the voice counts the same.
        shift: `(dim,)`, taken out of the audio's rows where nothing else is.
        confidence: How far answers can be trusted, where that is known.
        asr: Hears the words that are not given.
    """

    def __init__(
        self,
        engine: Engine,
        frontends: Mapping[str, Frontend],
        labels: Sequence[str],
        adaptation: Adaptation | None = None,
        shift: Rows | None = None,
        confidence: Confidence | None = None,
        asr: Asr | None = None,
    ) -> None:
        self.asr = asr or NoAsr()
        self.engine = engine
        self.frontends = frontends
        self.labels = labels
        self.adaptation = adaptation
        self.shift = shift
        self.confidence = confidence

    @property
    def hears_words(self) -> bool:
        """Whether the model takes words, in whatever form."""
        return bool(self._of_text())

    @property
    def highlighted(self) -> str | None:
        """The modality whose importances become highlighted words; `None` where no row is a word's."""
        return next((name for name in _WORDS if name in self.frontends), None)

    @property
    def window_samples(self) -> int:
        """Samples at 16 kHz that the model hears of an utterance at most; a second where it hears none."""
        frontend = self.frontends.get("audio")
        return frontend.samples_for(frontend.length) if isinstance(frontend, AudioFrontend) else SAMPLE_RATE

    def analyzed(self, samples: Samples) -> Samples:
        """Return what an answer is about: the model's window of an utterance, all of it where only words count."""
        return samples[: self.window_samples] if "audio" in self.frontends else samples

    def check(self, samples: Samples) -> None:
        """Raise `InputError` when samples are too short for the frontend."""
        for frontend in self.frontends.values():
            if isinstance(frontend, AudioFrontend):
                frontend.check(samples)

    def features(self, samples: Samples, evidence: Evidence, shift: Rows | None = None) -> Heard:
        """Run the frontends, unless there is neither speech nor a word to go by; the audio's rows lose the shift.

        The recogniser, where it is to be asked, hears what the audio's frontend has heard already.

        Raises:
            AsrError: The recogniser failed.
        """
        shift = self.shift if shift is None else shift
        duration_s = samples.shape[0] / SAMPLE_RATE
        told = self.hears_words and bool((evidence.transcript or "").strip())
        if not evidence.speech_share and not told:
            return Heard(replace(evidence, transcript=evidence.transcript or ""), duration_s, {})
        audio_ms = text_ms = 0.0
        features: dict[str, Features] = {}
        mean: NDArray[np.float64] | None = None
        hidden: Rows | None = None
        audio = self.frontends.get("audio")
        if isinstance(audio, AudioFrontend):
            before = time.perf_counter()
            heard = audio(samples)
            hidden = heard.hidden
            if shift is not None:
                mean = heard.mean() if evidence.speech_share else None
                heard = heard.without(shift)
            features["audio"] = heard
            audio_ms = (time.perf_counter() - before) * 1e3
        evidence = self._with_words(samples, evidence, hidden)
        tokens: list[Token] = []
        for name, frontend in self._of_text():
            before = time.perf_counter()
            cut = frontend.tokens(evidence.transcript or "")
            features[name] = frontend.features(cut)
            tokens = cut if name == self.highlighted else tokens
            text_ms += (time.perf_counter() - before) * 1e3
        is_cold = shift is None or not shift.any()
        return Heard(evidence, duration_s, features, tokens, audio_ms, text_ms, mean, is_cold)

    def _of_text(self) -> list[tuple[str, TextFrontend]]:
        """Return the frontends of the transcript, by modality."""
        return [(name, one) for name, one in self.frontends.items() if isinstance(one, TextFrontend)]

    def _with_words(self, samples: Samples, evidence: Evidence, hidden: Rows | None) -> Evidence:
        """Ask the recogniser, where nobody knows the words."""
        if evidence.transcript is not None:
            return evidence
        if not self.hears_words:
            return replace(evidence, transcript="")
        before = time.perf_counter()
        heard = self.asr.hear(samples, hidden)
        asr_ms = (time.perf_counter() - before) * 1e3
        return replace(
            evidence,
            transcript=heard.text,
            recognized=heard.words,
            is_doubtful=heard.is_doubtful,
            asr_ms=evidence.asr_ms + asr_ms,
        )

    def answer(self, batch: Sequence[Heard], answered: float = 1.0) -> list[Result]:
        """Run the model over all utterances that have features, in one call, and return a result for each.

        Args:
            batch: The utterances.
            answered: The share that is to be answered; below 1 others are `UNSURE`. See `check_answered`.
        """
        some = [heard for heard in batch if heard.features]
        results = iter(self._run(some) if some else [])
        found = [next(results) if heard.features else self._no_speech(heard) for heard in batch]
        return [self._trusted(heard, result, answered) for heard, result in zip(batch, found, strict=True)]

    def _trusted(self, heard: Heard, result: Result, answered: float) -> Result:
        """Say how far a result can be trusted, and leave it out where that is too little."""
        probability = result.probability
        if self.confidence is None or probability is None:
            return result
        curve = self.confidence.curve(heard.is_cold)
        label = UNSURE if curve.is_unsure(probability, answered) else result.label
        return replace(result, label=label, confidence=curve.of(probability))

    def _run(self, batch: Sequence[Heard]) -> list[Result]:
        started = time.perf_counter()
        outputs = self.engine.run(stack(batch, tuple(self.frontends)))
        logits = self._corrected(batch, outputs["logits"])
        engine_ms = (time.perf_counter() - started) * 1e3 / len(batch)
        probabilities = softmax(logits)
        return [
            self._result(heard, probabilities[i], {n: v[i] for n, v in outputs.items()}, engine_ms)
            for i, heard in enumerate(batch)
        ]

    def _corrected(self, batch: Sequence[Heard], logits: NDArray[Any]) -> NDArray[Any]:
        if self.adaptation is None:
            return logits
        return self.adaptation.apply(logits, np.stack([mean_rows(heard) for heard in batch]))

    def _no_speech(self, heard: Heard) -> Result:
        evidence = heard.evidence
        return Result(
            label=NO_SPEECH,
            probabilities=dict.fromkeys(self.labels, 1.0 / len(self.labels)),
            transcript=evidence.transcript or "",
            words=(),
            spans=(),
            duration_s=heard.duration_s,
            heard_s=self._heard_s(heard),
            engine=self.engine.name,
            timings=Timings(evidence.asr_ms, heard.audio_ms, heard.text_ms, 0.0, evidence.vad_ms),
            speech_share=0.0,
        )

    def _result(
        self, heard: Heard, probabilities: NDArray[np.float64], outputs: Mapping[str, NDArray[Any]], engine_ms: float
    ) -> Result:
        evidence, frontend = heard.evidence, self.frontends.get("audio")
        spans: tuple[Span, ...] = ()
        if isinstance(frontend, AudioFrontend) and "audio_importance" in outputs:
            spans = explain_audio(outputs["audio_importance"], heard.features["audio"].moments, frontend)
        weights = outputs.get(f"{self.highlighted}_importance")
        return Result(
            label=self.labels[int(probabilities.argmax())],
            probabilities={label: float(p) for label, p in zip(self.labels, probabilities, strict=True)},
            transcript=evidence.transcript or "",
            words=explain_words(evidence.transcript or "", heard.tokens, weights, evidence.recognized),
            spans=spans,
            duration_s=heard.duration_s,
            heard_s=self._heard_s(heard),
            engine=self.engine.name,
            timings=Timings(evidence.asr_ms, heard.audio_ms, heard.text_ms, engine_ms, evidence.vad_ms),
            speech_share=evidence.speech_share,
            is_doubtful=evidence.is_doubtful,
        )

    def _heard_s(self, heard: Heard) -> float:
        if "audio" not in self.frontends:
            return heard.duration_s
        return min(heard.duration_s, self.window_samples / SAMPLE_RATE)


def stack(batch: Sequence[Heard], modalities: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Stack features into the graph's inputs: `<name>` and `<name>_length` for each modality."""
    feeds: dict[str, NDArray[Any]] = {}
    for name in modalities:
        feeds[name] = np.stack([heard.features[name].values for heard in batch])
        feeds[f"{name}_length"] = np.array([heard.features[name].valid for heard in batch], dtype=np.int32)
    return feeds


def mean_rows(heard: Heard) -> NDArray[np.float64]:
    """Return the mean `(dim,)` over the voice's valid rows as the model gets them; 0 where there are none."""
    mean = heard.features["audio"].mean()
    return np.zeros(heard.features["audio"].values.shape[1]) if mean is None else mean


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probabilities of `(N, classes)` logits, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
