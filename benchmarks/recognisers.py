"""Recognisers, ours and others', each in a process of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from edgeser.runtime.asr.pocketsphinx import PocketSphinxAsr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.recognizer import Runtime

Recogniser = Callable[[Samples], str]


@dataclass(frozen=True)
class Sources:
    """What recognisers are opened from.

    Attributes:
        bundle: Of ours, one that brings a recogniser; `None` for the default bundle.
        engine: Of ours.
        whisper: CTranslate2's folder of the Whisper that faster-whisper runs.
    """

    bundle: Path | None
    engine: str
    whisper: Path


@dataclass(frozen=True)
class Heard:
    """What a recogniser said of a clip, and how long it took, ms: by the clock, and of the processor alone."""

    said: str
    wall_ms: float
    cpu_ms: float


def whole_path(sources: Sources) -> Recogniser:
    """The words, and the emotion with them."""
    runtime = Runtime.load(sources.bundle, engine=sources.engine, asr="whisper")
    return lambda samples: runtime.recognize(samples, SAMPLE_RATE).transcript


def words_alone(sources: Sources) -> Recogniser:
    """The bundle's recogniser without the rest."""
    runtime = Runtime.load(sources.bundle, engine=sources.engine, asr="whisper")
    return lambda samples: runtime.asr.hear(samples).text


def faster_whisper(sources: Sources) -> Recogniser:
    """CTranslate2, INT8, greedy, over 30 s."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(sources.whisper), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    return lambda samples: "".join(
        segment.text for segment in model.transcribe(samples, language="en", beam_size=1, temperature=0.0)[0]
    )


def moonshine(_: Sources) -> Recogniser:
    """Moonshine tiny, whose wheel has the weights."""
    import moonshine_voice

    folder = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
    model = moonshine_voice.Transcriber(str(folder), moonshine_voice.ModelArch.TINY)
    return lambda samples: " ".join(
        line.text for line in model.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE).lines
    )


def pocketsphinx(_: Sources) -> Recogniser:
    asr = PocketSphinxAsr()
    return lambda samples: asr.hear(samples).text


RECOGNISERS: Mapping[str, Callable[[Sources], Recogniser]] = {
    "edgeser, words and emotion": whole_path,
    "edgeser, words alone": words_alone,
    "faster-whisper tiny.en int8": faster_whisper,
    "moonshine tiny": moonshine,
    "pocketsphinx": pocketsphinx,
}


class RecogniserProcess:
    """A recogniser on one core, in a process of its own.

    Args:
        name: One of `RECOGNISERS`.
        sources: What it is opened from.

    Raises:
        ImportError: Its library is not installed.
        InputError: It does not open.
    """

    def __init__(self, name: str, sources: Sources) -> None:
        context = get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_answer, args=(far, name, sources), daemon=True)
        self._process.start()
        far.close()
        if (failure := self._pipe.recv()) is not None:
            raise failure

    def hear(self, samples: Samples) -> Heard:
        """Return the words, and what they took."""
        self._pipe.send(samples)
        heard: Heard = self._pipe.recv()
        return heard

    def end(self) -> float:
        """End the process and return its peak memory, MB."""
        self._pipe.send(None)
        peak_mb = float(self._pipe.recv())
        self._process.join()
        return peak_mb


def _answer(pipe: Connection, name: str, sources: Sources) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for heavy in ("torch", "transformers"):  # no device has them; CTranslate2 loads what it finds
        sys.modules[heavy] = None  # type: ignore[assignment]
    try:
        recognise = RECOGNISERS[name](sources)
    except (ImportError, EdgeSerError) as error:  # sent as what pickles whatever its arguments
        pipe.send(ImportError(str(error)) if isinstance(error, ImportError) else InputError(str(error)))
        return
    pipe.send(None)
    while (samples := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        said = recognise(samples)
        pipe.send(Heard(said, (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    # Not `getrusage`: its peak is the parent's where that was greater when this process was made.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    pipe.send(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
