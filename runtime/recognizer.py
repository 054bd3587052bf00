"""`Runtime`: a bundle, opened and ready to answer."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import BUNDLED, Asr, RecognizedWord, Transcript, open_asr
from edgeser.runtime.audio import Recorded, Samples, load_recording, prepare
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.confidence import check_answered
from edgeser.runtime.engine_choice import check_contract, engines_to_try
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, candidates, open_engine
from edgeser.runtime.errors import BundleError, EngineError, InputError, MissingDependencyError, ParityError
from edgeser.runtime.frontends import AudioFrontend, Frontend, OpenGraph
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.golden import prove, verify_engine
from edgeser.runtime.memory import give_back, is_too_much, memory_errors
from edgeser.runtime.normalization import Normalization
from edgeser.runtime.owner import OwnerProcess
from edgeser.runtime.pipeline import Evidence, Heard, Pipeline
from edgeser.runtime.results import Result
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.speech import SpeechMeter
from edgeser.runtime.vad import VAD_FRAME

if TYPE_CHECKING:
    from edgeser.runtime.sources import Source
    from edgeser.runtime.streams import Event, Stream, StreamOptions

log = logging.getLogger(__name__)

DEFAULT_BUNDLE = "default.edgeser"
_SELF_TEST_VECTORS = 2  # a few milliseconds; `edgeser doctor` runs them all


class Runtime:
    """Recognises emotion in speech with one bundle; made by `load`.

    Safe to call from any thread, and its streams share it. Calls run side by side: only the engines and the recogniser
    take one caller at a time, each for itself, so that nobody waits for words whose own are there. A Runtime stays in
    the process that loaded it.

    Attributes:
        bundle: The opened bundle.
        engine: What runs its graph.
        labels: Emotions that are answered, in the order of the model's classes.
        frontends: By modality, opened.
        normalization: Whether, and how, the mean of what was heard is taken out of rows.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, asr: Asr | None = None, open_graph: OpenGraph = open_engine
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.labels = bundle.manifest.answers
        self.frontends: dict[str, Frontend] = {
            name: bundle.frontend(name, open_graph) for name in bundle.manifest.inputs
        }
        # One that was given may serve others.
        hears, self._owns_asr = (asr, False) if asr is not None else (self._own_asr(open_graph), True)
        self._owner = OwnerProcess("runtime")
        adaptation = bundle.adaptation()
        self.normalization = Normalization(bundle.manifest, bundle.path.name, adaptation)
        shift, confidence = self.normalization.own_shift, bundle.manifest.confidence
        self._pipeline = Pipeline(engine, self.frontends, self.labels, adaptation, shift, confidence, hears)
        self._speech = SpeechMeter()
        check_contract(bundle, engine)

    def _own_asr(self, open_graph: OpenGraph) -> Asr:
        recogniser = self.bundle.recogniser(self.frontends, open_graph)
        if recogniser is None:
            raise InputError(
                f"asr: got {BUNDLED}, which {self.bundle.path.name} does not bring: choose another recogniser"
            )
        return recogniser

    @property
    def asr(self) -> Asr:
        """What hears the words."""
        return self._pipeline.asr

    @asr.setter
    def asr(self, asr: Asr) -> None:
        self._pipeline.asr = asr

    @property
    def hears_words(self) -> bool:
        """Whether the model takes words, in whatever form."""
        return self._pipeline.hears_words

    @property
    def highlighted(self) -> str | None:
        """The modality whose importances become highlighted words; `None` where no row is a word's."""
        return self._pipeline.highlighted

    @property
    def window_samples(self) -> int:
        """Samples at 16 kHz that the model hears of an utterance at most."""
        return self._pipeline.window_samples

    @classmethod
    @memory_errors()
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        *,
        engine: str = "auto",
        asr: str = "auto",
        threads: int = 1,
        self_test: bool = True,
        isolate_asr: bool = False,
        trusted: str | os.PathLike[str] | None = None,
    ) -> Runtime:
        """Open a bundle and make it ready.

        Args:
            bundle: A `.edgeser` file or folder; `None` for the one that ships with the package.
            engine: An engine's name; or `auto`: OpenVINO where it is installed and passes all of the bundle's golden
                vectors, else ONNX Runtime.
            asr: `whisper`, which a bundle may bring; `pocketsphinx`, `none`, or `vosk:MODEL`, a folder or a language
                such as `vosk:ko`; or `auto`: the bundle's own, else Vosk where it is installed and finds a US English
                model, else PocketSphinx where it is installed, else none.
            threads: Threads of the engine.
            self_test: Check the engine against golden vectors: ONNX Runtime against some (a few milliseconds), another
                engine against all. Without it nothing is known of the others, and `auto` is ONNX Runtime.
            isolate_asr: Run the recogniser in a process of its own, so that its crash or hang is an `AsrError`; not the
                bundle's own, which runs in the engine.
            trusted: minisign's public key, or its file, that the bundle must be signed with.

        Raises:
            InputError: No such engine, recogniser or Vosk model, or `trusted` is no key.
            BundleError: The bundle is missing or damaged, or not signed with the key that is trusted.
            EngineError: The engine refuses the graph.
            AsrError: The recogniser does not start.
            ParityError: The engine does not compute what the bundle says.
            MissingDependencyError: The named engine or recogniser is not installed.
        """
        opened = Bundle.open(default_bundle() if bundle is None else bundle, trusted)
        names = engines_to_try(opened, engine) if self_test else candidates(engine)[-1:]
        listener = None if _brings(opened, asr) else open_asr(asr, isolate=isolate_asr)
        try:
            runtime = cls._first(opened, names, listener, threads, self_test)
        except BaseException:
            if listener is not None:
                listener.close()
            raise
        runtime._owns_asr = True
        give_back()
        return runtime

    @classmethod
    def _first(cls, bundle: Bundle, names: Sequence[str], asr: Asr | None, threads: int, self_test: bool) -> Runtime:
        """Return a Runtime with the first engine that serves."""
        for name, following in itertools.pairwise(names):
            scarce = is_too_much(name)
            if scarce:
                log.warning("%s is not used, %s is: %s", name, following, scarce)
                continue
            try:
                return cls._opened(bundle, name, asr, threads)._proved()
            except (BundleError, EngineError, MissingDependencyError, ParityError) as error:
                log.warning("%s is not used, %s is: %s", name, following, error)
        runtime = cls._opened(bundle, names[-1], asr, threads)
        return runtime._proved() if self_test else runtime

    @classmethod
    def _opened(cls, bundle: Bundle, engine: str, asr: Asr | None, threads: int) -> Runtime:
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
                own = self.asr if self.asr.name == BUNDLED else None
                difference = prove(self.engine, self.frontends, self.bundle, own).logits
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
        state: RunningMean | None = None,
        answered: float = 1.0,
    ) -> Result:
        """Recognise the emotion of one utterance.

        Without speech in it, and without words from the caller, the answer is `no speech`; see `Result`.

        Args:
            audio: Samples, `(samples,)` or `(samples, channels)`, PCM or floats at full scale 1.0; or a file.
            rate: Sample rate in Hz; needed with samples, not with a file.
            transcript: What was said, where it is known; the ASR is then not asked.
            state: What was heard before, from `open_state`: its mean is taken out of the rows, then the utterance is
                added to it, if it has speech. Without one nothing is taken out.
            answered: The share of utterances that is to be answered, 0.05 to 1: what can be trusted less is `unsure`.

        Raises:
            InputError: The audio or the state is not usable, or the bundle does not go with `answered`.
            AsrError: The recogniser failed.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        self.check_answered(answered)
        with memory_errors():
            shift = None if state is None else self.normalization.shift(state)
            recorded = self._recorded(audio, rate)
            result = self._answered(self._listen(recorded.samples, transcript, shift), state, answered)
        return replace(result, truncated=recorded.truncated)

    def open_state(self) -> RunningMean:
        """Return the state of a running mean that has heard nothing yet.

        Raises:
            InputError: The bundle's model was not trained for rows without their mean.
        """
        return self.normalization.open_state()

    def recognize_batch(
        self,
        audio: Sequence[Samples],
        transcripts: Sequence[str | None],
        shifts: Sequence[Rows | None] | None = None,
        answered: float = 1.0,
    ) -> list[Result]:
        """Recognise several utterances in one run of the engine.

        Args:
            audio: `(samples,)` float32 each, mono at 16 kHz, as `edgeser.runtime.audio.prepare` gives them.
            transcripts: What was said in each, or `None`.
            shifts: What is taken out of the audio's rows of each, see `Normalization.shift`, or `None`.
            answered: See `recognize`.

        Raises:
            InputError: The audio is not usable, or the bundle does not go with `answered`.
            AsrError: The recogniser failed.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        self.check_answered(answered)
        with memory_errors():
            rows = zip(audio, transcripts, shifts or [None] * len(audio), strict=True)
            return self._pipeline.answer([self._listen(*row) for row in rows], answered)

    def mean_of(self, samples: Samples) -> NDArray[np.float64] | None:
        """Return the mean of an utterance's standardised rows, `(dim,)`, as a state is fed with; `None` without speech.

        Args:
            samples: `(samples,)` float32, mono at 16 kHz.

        Raises:
            InputError: The audio is not usable.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        self.check(samples)
        with memory_errors():
            audio = self.frontends.get("audio")
            if not isinstance(audio, AudioFrontend) or self._speech_share(samples)[0] <= 0:
                return None
            return audio(samples).mean()

    def answer(
        self,
        samples: Samples,
        words: Sequence[RecognizedWord] | None,
        asr_ms: float = 0.0,
        spoken: NDArray[np.bool_] | None = None,
        state: RunningMean | None = None,
        answered: float = 1.0,
    ) -> Result:
        """Recognise one utterance whose words a recogniser may have heard already.

        Args:
            samples: `(samples,)` float32, mono at 16 kHz.
            words: What was heard, perhaps nothing; `None` where the recogniser is to be asked.
            asr_ms: How long that took.
            spoken: Which frames of 32 ms are speech; `None` where nobody knows yet.
            state: See `recognize`.
            answered: See `recognize`.

        Raises:
            InputError: The audio or the state is not usable, or the bundle does not go with `answered`.
            AsrError: The recogniser failed.
            EngineError: The engine failed, or the Runtime was loaded before a fork.
        """
        self._owner.check()
        self.check(samples)
        self.check_answered(answered)
        if spoken is None:
            share, vad_ms = self._speech_share(samples)
        else:
            share, vad_ms = float(spoken[: -(-self._pipeline.analyzed(samples).shape[0] // VAD_FRAME)].mean()), 0.0
        evidence = Evidence(None, speech_share=share, vad_ms=vad_ms)
        if words is not None:
            evidence = replace(evidence, transcript=Transcript(tuple(words)).text, recognized=words, asr_ms=asr_ms)
        with memory_errors():
            shift = None if state is None else self.normalization.shift(state)
            return self._answered(self._pipeline.features(samples, evidence, shift), state, answered)

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
        self._pipeline.check(samples)

    def check_answered(self, answered: float) -> None:
        """Raise `InputError` when a share to answer is none, or the bundle has no confidence table to go by."""
        check_answered(answered, self.bundle.path.name, self.bundle.manifest.confidence)

    def score(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        batch_size: int = 8,
        on_error: Callable[[Path, str], None] | None = None,
        normalize: str | None = None,
        state: RunningMean | None = None,
        answered: float = 1.0,
    ) -> Iterator[Result]:
        """Recognise audio files in batches, in their order; a file that fails stops no other.

        It has no result: there may be fewer results than paths. For one answer a path, with its path, see
        `edgeser.runtime.scoring.score`.

        Args:
            paths: The files.
            batch_size: Files that the engine gets together.
            on_error: Called with a file that failed and the reason, at its place in the order; without it a warning is
                logged.
            normalize: `run` takes the mean of all these files out of their rows, in two passes; `none` nothing.
            state: A mean that is taken out of all instead, and stays as it is.
            answered: See `recognize`.

        Raises:
            InputError: The bundle does not go with `normalize`, `state` or `answered`.
        """
        from edgeser.runtime.scoring import score, without_mean

        self.check_answered(answered)
        for scored in score(self, without_mean(self, paths, normalize, state), batch_size, answered=answered):
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
        self._speech.close()
        self.engine.close()
        for frontend in self.frontends.values():
            frontend.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recorded(self, audio: Any, rate: int | None) -> Recorded:
        if isinstance(audio, (str, os.PathLike)):
            if rate is not None:
                raise InputError(f"rate: got {rate} with a file, expected none: a file knows its rate")
            return load_recording(audio)
        if rate is None:
            raise InputError("rate: got none with samples, expected their sample rate in Hz")
        return Recorded(prepare(audio, rate))

    def _answered(self, heard: Heard, state: RunningMean | None, answered: float) -> Result:
        """Answer one utterance; once that is done, a state has heard it."""
        result = self._pipeline.answer([heard], answered)[0]
        if state is not None and heard.mean is not None:
            state.add(heard.mean)
        return result

    def _listen(self, samples: Samples, transcript: str | None, shift: Rows | None = None) -> Heard:
        """Look for speech, and run the frontends, and the ASR where it is needed."""
        self.check(samples)
        share, vad_ms = self._speech_share(samples)
        evidence = Evidence(transcript, speech_share=share, vad_ms=vad_ms)
        return self._pipeline.features(samples, evidence, shift)

    def _speech_share(self, samples: Samples) -> tuple[float, float]:
        """Return the share of speech in what the model hears, and the milliseconds that finding it took."""
        started = time.perf_counter()
        share = self._speech.share(self._pipeline.analyzed(samples))
        return share, (time.perf_counter() - started) * 1e3


def default_bundle() -> Path:
    """Return the bundle that ships with the package."""
    import edgeser

    return Path(edgeser.__file__).parent / "pretrained" / DEFAULT_BUNDLE


def _brings(bundle: Bundle, asr: str) -> bool:
    """Whether the bundle's own recogniser is to hear the words: where it is asked for, or there and of use."""
    hears = bundle.manifest.recogniser is not None and any(name != "audio" for name in bundle.manifest.inputs)
    return asr == BUNDLED or (asr == "auto" and hears)
