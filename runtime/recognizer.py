"""`Runtime`: a bundle, opened and ready to answer."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import Asr, RecognizedWord, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio, prepare
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, candidates, open_engine
from edgeser.runtime.errors import BundleError, EngineError, InputError, MissingDependencyError, ParityError
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, OpenGraph, TextFrontend, Token
from edgeser.runtime.golden import prove, unproved, verify_engine
from edgeser.runtime.owner import OwnerProcess
from edgeser.runtime.results import Result, Span, Timings, explain_audio, explain_words

if TYPE_CHECKING:
    from edgeser.runtime.sources import Source
    from edgeser.runtime.streams import Event, Stream, StreamOptions

log = logging.getLogger(__name__)

DEFAULT_BUNDLE = "default.edgeser"
_SELF_TEST_VECTORS = 2  # a few milliseconds; `edgeser doctor` runs them all
_WORDS = ("text", "phonemes")  # modalities with a row for each word, those with the better importances first


@dataclass(frozen=True)
class Heard:
    """One utterance on its way to the engine: features, words, and the time they took.

    Attributes:
        features: By modality.
        transcript: What was said, as far as it is known.
        tokens: The words as the modality cuts them whose importance is shown; see `Runtime.highlighted`.
        recognized: The recogniser's words.
        duration_s: Length of the audio.
        asr_ms: Time that the recogniser took.
        audio_ms: Time that the audio's frontend took.
        text_ms: Time that all frontends of the transcript took.
    """

    features: Mapping[str, Features]
    transcript: str
    tokens: Sequence[Token]
    recognized: Sequence[RecognizedWord]
    duration_s: float
    asr_ms: float
    audio_ms: float
    text_ms: float


class Runtime:
    """Recognises emotion in speech with one bundle; made by `load`.

    Safe to call from any thread, and its streams share it. Calls run side by side: only the engines and the recogniser
    take one caller at a time, each for itself, so that nobody waits for words whose own are there. A Runtime stays in
    the process that loaded it.

    Attributes:
        bundle: The opened bundle.
        engine: What runs its graph.
        asr: What hears the words.
        labels: Emotions, in the order of the model's classes.
        frontends: By modality, opened.
    """

    def __init__(self, bundle: Bundle, engine: Engine, asr: Asr, open_graph: OpenGraph = open_engine) -> None:
        self.bundle = bundle
        self.engine = engine
        self.asr = asr
        self._owns_asr = False  # one that was given may serve others
        self.labels = bundle.manifest.labels
        self.frontends: dict[str, Frontend] = {
            name: bundle.frontend(name, open_graph) for name in bundle.manifest.inputs
        }
        self._owner = OwnerProcess("runtime")
        _check_contract(bundle, engine)

    @property
    def hears_words(self) -> bool:
        """Whether the model takes words, in whatever form."""
        return any(isinstance(frontend, TextFrontend) for frontend in self.frontends.values())

    @property
    def highlighted(self) -> str | None:
        """The modality whose importances become highlighted words; `None` where no row is a word's."""
        return next((name for name in _WORDS if name in self.frontends), None)

    @property
    def window_samples(self) -> int:
        """Samples at 16 kHz that the model hears of an utterance at most."""
        frontend = self.frontends.get("audio")
        return frontend.samples_for(frontend.length) if isinstance(frontend, AudioFrontend) else SAMPLE_RATE

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        *,
        engine: str = "auto",
        asr: str = "auto",
        threads: int = 1,
        self_test: bool = True,
        isolate_asr: bool = False,
    ) -> Runtime:
        """Open a bundle and make it ready.

        Args:
            bundle: A `.edgeser` file or folder; `None` for the one that ships with the package.
            engine: An engine's name; or `auto`: OpenVINO where it is installed and passes all of the bundle's golden
                vectors, else ONNX Runtime.
            asr: `pocketsphinx`, `none`, or `vosk:MODEL`, a folder or a language such as `vosk:ko`; or `auto`: Vosk
                where it is installed and finds a US English model, else PocketSphinx where it is installed, else none.
            threads: Threads of the engine.
            self_test: Check the engine against golden vectors: ONNX Runtime against some (a few milliseconds), another
                engine against all. Without it nothing is known of the others, and `auto` is ONNX Runtime.
            isolate_asr: Run the recogniser in a process of its own, so that its crash or hang is an `AsrError`.

        Raises:
            InputError: No such engine, recogniser or Vosk model.
            BundleError: The bundle is missing or damaged.
            EngineError: The engine refuses the graph.
            AsrError: The recogniser does not start.
            ParityError: The engine does not compute what the bundle says.
            MissingDependencyError: The named engine or recogniser is not installed.
        """
        opened = Bundle.open(default_bundle() if bundle is None else bundle)
        names = _choices(opened, engine) if self_test else candidates(engine)[-1:]
        listener = open_asr(asr, isolate=isolate_asr)
        try:
            runtime = cls._first(opened, names, listener, threads, self_test)
        except BaseException:
            listener.close()
            raise
        runtime._owns_asr = True
        return runtime

    @classmethod
    def _first(cls, bundle: Bundle, names: Sequence[str], asr: Asr, threads: int, self_test: bool) -> Runtime:
        """Return a Runtime with the first engine that serves."""
        for name, following in itertools.pairwise(names):
            try:
                return cls._opened(bundle, name, asr, threads)._proved()
            except (BundleError, EngineError, MissingDependencyError, ParityError) as error:
                log.warning("%s is not used, %s is: %s", name, following, error)
        runtime = cls._opened(bundle, names[-1], asr, threads)
        return runtime._proved() if self_test else runtime

    @classmethod
    def _opened(cls, bundle: Bundle, engine: str, asr: Asr, threads: int) -> Runtime:
        opened: list[Engine] = []

        def open_graph(graph: bytes) -> Engine:
            opened.append(open_engine(graph, engine, threads))
            return opened[-1]

        try:
            return cls(bundle, open_graph(bundle.graph()), asr, open_graph)
        except BaseException:
            for one in opened:
                one.close()
            raise

    def _proved(self) -> Runtime:
        """Return this Runtime when its engines pass golden vectors, and close it when they do not."""
        try:
            if self.engine.name == OnnxRuntimeEngine.name:
                difference = verify_engine(self.engine, self.bundle, _SELF_TEST_VECTORS)
            else:
                difference = prove(self.engine, self.frontends, self.bundle).logits
        except BaseException:
            self.close()
            raise
        log.debug("%s: golden vectors within %.1e", self.engine.name, difference)
        return self

    def recognize(
        self,
        audio: NDArray[np.generic] | str | os.PathLike[str],
        rate: int | None = None,
        *,
        transcript: str | None = None,
    ) -> Result:
        """Recognise the emotion of one utterance.

        Args:
            audio: Samples, `(samples,)` or `(samples, channels)`, PCM or floats at full scale 1.0; or a file.
            rate: Sample rate in Hz; needed with samples, not with a file.
            transcript: What was said, where it is known; the ASR is then not asked.

        Raises:
            InputError: The audio is not usable.
            AsrError: The recogniser failed.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        samples = self._samples(audio, rate)
        return self._answer([self._listen(samples, transcript)])[0]

    def recognize_batch(self, audio: Sequence[Samples], transcripts: Sequence[str | None]) -> list[Result]:
        """Recognise several utterances in one run of the engine.

        Args:
            audio: `(samples,)` float32 each, mono at 16 kHz, as `edgeser.runtime.audio.prepare` gives them.
            transcripts: What was said in each, or `None`.

        Raises:
            InputError: The audio is not usable.
            AsrError: The recogniser failed.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        return self._answer([self._listen(s, t) for s, t in zip(audio, transcripts, strict=True)])

    def answer(self, samples: Samples, words: Sequence[RecognizedWord], asr_ms: float = 0.0) -> Result:
        """Recognise one utterance whose words a recogniser has heard already.

        Args:
            samples: `(samples,)` float32, mono at 16 kHz.
            words: What was heard, perhaps nothing.
            asr_ms: How long that took.

        Raises:
            InputError: The audio is not usable.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        return self._answer([self._features(samples, _spoken(words), words, asr_ms)])[0]

    def open_stream(
        self,
        on_event: Callable[[Event], None] | None = None,
        *,
        partial: bool = False,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream: push audio whenever it arrives, get one Event for each utterance.

        Args:
            on_event: Called with each Event in a thread of the stream; without it, iterate over the stream.
            partial: Also emit rolling estimates while someone speaks.
            options: How to cut, wait and drop.

        Raises:
            MissingDependencyError: The voice detector is not installed.
            EngineError: The Runtime was loaded before a fork.
        """
        self._owner.check()
        from edgeser.runtime.streams import Stream, StreamOptions

        options = options or StreamOptions()
        return Stream(self, replace(options, partial=partial or options.partial), on_event)

    def listen(
        self, source: Source | None = None, *, partial: bool = False, options: StreamOptions | None = None
    ) -> Iterator[Event]:
        """Yield Events from a source until it ends.

        Args:
            source: Where the audio comes from, for example `edgeser.runtime.sources.FileSource(path)`; by default the
                microphone.
            partial: Also yield rolling estimates while someone speaks.
            options: How to cut, wait and drop.

        Raises:
            InputError: The source cannot be opened.
            SourceError: It broke.
        """
        from edgeser.runtime.sources import Microphone

        with self.open_stream(partial=partial, options=options) as stream:
            stream.capture(source or Microphone())
            yield from stream

    def check(self, samples: Samples) -> None:
        """Raise `InputError` when samples are too short for the frontend."""
        for frontend in self.frontends.values():
            if isinstance(frontend, AudioFrontend):
                frontend.check(samples)

    def score(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        batch_size: int = 8,
        on_error: Callable[[Path, str], None] | None = None,
    ) -> Iterator[Result]:
        """Recognise audio files in batches, in their order; a file that fails stops no other.

        It has no result: there may be fewer results than paths. For one answer a path, with its path, see
        `edgeser.runtime.scoring.score`.

        Args:
            paths: The files.
            batch_size: Files that the engine gets together.
            on_error: Called with a file that failed and the reason, at its place in the order; without it a warning is
                logged.
        """
        from edgeser.runtime.scoring import Recording, score

        for scored in score(self, (Recording(os.fspath(path), Path(path)) for path in paths), batch_size):
            if scored.result is not None:
                yield scored.result
            elif on_error is not None:
                on_error(scored.recording.path, scored.error)
            else:
                log.warning("%s has no result: %s", scored.recording.path, scored.error)

    def close(self) -> None:
        """Free the engines, and the recogniser that `load` opened; in a process that was forked, do nothing."""
        if not self._owner.is_here:
            return
        if self._owns_asr:
            self.asr.close()
        self.engine.close()
        for frontend in self.frontends.values():
            frontend.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _samples(self, audio: Any, rate: int | None) -> Samples:
        if isinstance(audio, (str, os.PathLike)):
            if rate is not None:
                raise InputError(f"rate: got {rate} with a file, expected none: a file knows its rate")
            return load_audio(audio)
        if rate is None:
            raise InputError("rate: got none with samples, expected their sample rate in Hz")
        return prepare(audio, rate)

    def _listen(self, samples: Samples, transcript: str | None) -> Heard:
        """Run the ASR where it is needed, and the frontends."""
        if transcript is not None or not self.hears_words:
            return self._features(samples, transcript or "")
        started = time.perf_counter()
        recognized = self.asr.transcribe(samples)
        return self._features(samples, _spoken(recognized), recognized, (time.perf_counter() - started) * 1e3)

    def _features(
        self, samples: Samples, words: str, recognized: Sequence[RecognizedWord] = (), asr_ms: float = 0.0
    ) -> Heard:
        """Run the frontends."""
        features: dict[str, Features] = {}
        tokens: list[Token] = []
        audio_ms = text_ms = 0.0
        for name, frontend in self.frontends.items():
            before = time.perf_counter()
            if isinstance(frontend, AudioFrontend):
                features[name] = frontend(samples)
                audio_ms += (time.perf_counter() - before) * 1e3
            elif isinstance(frontend, TextFrontend):
                cut = frontend.tokens(words)
                features[name] = frontend.features(cut)
                tokens = cut if name == self.highlighted else tokens
                text_ms += (time.perf_counter() - before) * 1e3
        return Heard(
            features,
            words,
            tokens,
            recognized,
            samples.shape[0] / SAMPLE_RATE,
            asr_ms,
            audio_ms,
            text_ms,
        )

    def _answer(self, batch: Sequence[Heard]) -> list[Result]:
        started = time.perf_counter()
        outputs = self.engine.run(stack(batch, tuple(self.frontends)))
        engine_ms = (time.perf_counter() - started) * 1e3 / len(batch)
        probabilities = softmax(outputs["logits"])
        return [
            self._result(heard, probabilities[i], {n: v[i] for n, v in outputs.items()}, engine_ms)
            for i, heard in enumerate(batch)
        ]

    def _result(
        self, heard: Heard, probabilities: NDArray[np.float64], outputs: Mapping[str, NDArray[Any]], engine_ms: float
    ) -> Result:
        spans: tuple[Span, ...] = ()
        heard_s = heard.duration_s
        frontend = self.frontends.get("audio")
        if isinstance(frontend, AudioFrontend):
            audio = heard.features["audio"]
            if audio.total > audio.valid:
                heard_s = (audio.valid - 1) * frontend.hop_s + frontend.window_s
            if "audio_importance" in outputs:
                spans = explain_audio(outputs["audio_importance"], audio.valid, frontend)
        weights = outputs.get(f"{self.highlighted}_importance")
        words = explain_words(heard.transcript, heard.tokens, weights, heard.recognized)
        return Result(
            label=self.labels[int(probabilities.argmax())],
            probabilities={label: float(p) for label, p in zip(self.labels, probabilities, strict=True)},
            transcript=heard.transcript,
            words=words,
            spans=spans,
            duration_s=heard.duration_s,
            heard_s=heard_s,
            engine=self.engine.name,
            timings=Timings(heard.asr_ms, heard.audio_ms, heard.text_ms, engine_ms),
        )


def default_bundle() -> Path:
    """Return the bundle that ships with the package."""
    import edgeser

    return Path(edgeser.__file__).parent / "pretrained" / DEFAULT_BUNDLE


def _choices(bundle: Bundle, engine: str) -> tuple[str, ...]:
    """Return the engines to try with a bundle, best first; others than ONNX Runtime only where they can be proved."""
    names = candidates(engine)
    unknown = () if names == (OnnxRuntimeEngine.name,) else unproved(bundle)
    if not unknown:
        return names
    why = f"{bundle.path.name} has no golden vectors for its encoders of {' and '.join(unknown)}"
    if len(names) == 1:
        log.warning("%s is used unproved: %s", engine, why)
    else:
        log.warning("%s is not used, %s is: %s", ", ".join(names[:-1]), names[-1], why)
    return names[-1:]


def _spoken(words: Sequence[RecognizedWord]) -> str:
    return " ".join(word.text for word in words)


def stack(batch: Sequence[Heard], modalities: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Stack features into the graph's inputs: `<name>` and `<name>_length` for each modality."""
    feeds: dict[str, NDArray[Any]] = {}
    for name in modalities:
        feeds[name] = np.stack([heard.features[name].values for heard in batch])
        feeds[f"{name}_length"] = np.array([heard.features[name].valid for heard in batch], dtype=np.int32)
    return feeds


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probabilities of `(N, classes)` logits, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def _check_contract(bundle: Bundle, engine: Engine) -> None:
    """The graph must take what the manifest says and give one logit per label."""
    takes = {spec.name: spec.shape for spec in engine.inputs}
    expected: dict[str, tuple[int | None, ...]] = {}
    for name, entry in bundle.manifest.inputs.items():
        expected[name] = (None, entry.length, entry.dim)
        expected[f"{name}_length"] = (None,)
    gives = {spec.name: spec.shape for spec in engine.outputs}
    if takes != expected or gives.get("logits") != (None, len(bundle.manifest.labels)):
        raise BundleError(
            f"{bundle.path}: the graph takes {takes} and gives {gives}, the manifest says {expected} "
            f"and {len(bundle.manifest.labels)} labels: export the bundle again"
        )
