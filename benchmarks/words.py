"""Word error rate and time of recognisers, one thread, clip by clip in turn.

  python benchmarks/words.py words/manifest.csv --clips 40
  python benchmarks/words.py ravdess/ --clips 32 --encoder whisper-base --windows 200 460

A manifest is a CSV with `audio`, a path relative to it, and `transcript`; a folder is one of RAVDESS, whose file names
say which of two sentences is spoken. Ours hears through the shortest window that holds the clip; what is longer than
the longest is cut for all. Peers that are not installed (`pip install 'edgeser[words]'`) are left out, with a line.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.export_tools.encoders.export import example_inputs, lower_encoder, placed
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.export_tools.encoders.whisper import whisper_from_ctranslate2
from edgeser.export_tools.recogniser.export import RecogniserOptions, export_recogniser
from edgeser.runtime.asr.pocketsphinx import PocketSphinxAsr
from edgeser.runtime.asr.whisper import DecodingOptions, WhisperDecoder
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError, MissingDependencyError

SENTENCES = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
HOP = 320  # samples of a row
Recogniser = Callable[[Samples], str]


@dataclass(frozen=True)
class Clip:
    """A recording with what is said in it, and what to group it by."""

    audio: Path
    said: str
    group: str


@dataclass
class Record:
    """What a recogniser said of each clip, and how long it took, in ms."""

    said: list[str] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)


def read_clips(source: Path) -> list[Clip]:
    """Read a manifest, or a folder of RAVDESS.

    Raises:
        InputError: It has no clip.
    """
    if source.is_dir():
        parts = [(path, path.stem.split("-")) for path in sorted(source.rglob("03-01-*.*"))]
        clips = [
            Clip(path, SENTENCES[numbers[4]], EMOTIONS[int(numbers[2]) - 1])
            for path, numbers in parts
            if len(numbers) == 7 and numbers[4] in SENTENCES
        ]
    else:
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        clips = [Clip(source.parent / row["audio"], row["transcript"], row["id"].rsplit("_", 1)[0]) for row in rows]
    if not clips:
        raise InputError(f"{source}: has no clip, expected a manifest with audio and transcript, or clips of RAVDESS")
    return clips


def ours(encoder: str, windows: Sequence[int], weights: str) -> Recogniser:
    """Whisper's encoder over a few windows, and the decoder; the rows for emotion come out beside the words."""
    engines = {}
    with placed(encoder) as folder:
        for window in windows:
            module = whisper_from_ctranslate2(folder, window)
            module.choice = LayerChoice.parse(str(min(3, module.layers)), module.layers)
            module.give_hidden()
            graph = lower_encoder(module, example_inputs(module, window, module.describe()))
            engines[window] = open_engine(store_weights(graph, weights).SerializeToString())
        files, description = export_recogniser(folder, RecogniserOptions(any_rows=True, weights=weights))
    options = DecodingOptions(**{name: value for name, value in description.items() if isinstance(value, float)})
    decoder = WhisperDecoder(files.__getitem__, options=options)
    size = sum(map(len, files.values()))
    print(f"ours, {encoder}, {weights}: {size / 1e6:.1f} MB beside the encoder", file=sys.stderr)

    def hear(samples: Samples) -> str:
        rows = max(1, samples.shape[0] // HOP)
        window = min(window for window in engines if window >= rows)
        padded = np.zeros((1, window * HOP), np.float32)
        padded[0, : samples.shape[0]] = samples[: window * HOP]
        hidden: NDArray[np.float32] = engines[window].run({"samples": padded})["hidden"][0]
        return " ".join(word.text for word in decoder.decode(hidden, rows).words)

    return hear


def faster_whisper(encoder: str) -> Recogniser:
    """The same weights through CTranslate2, INT8, greedy, over 30 s."""
    from faster_whisper import WhisperModel

    with placed(encoder) as folder:
        model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    return lambda samples: "".join(
        segment.text for segment in model.transcribe(samples, language="en", beam_size=1, temperature=0.0)[0]
    )


def moonshine(_: str) -> Recogniser:
    """Moonshine tiny, whose wheel has the weights."""
    import moonshine_voice

    folder = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
    model = moonshine_voice.Transcriber(str(folder), moonshine_voice.ModelArch.TINY)
    return lambda samples: " ".join(
        line.text for line in model.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE).lines
    )


def pocketsphinx(_: str) -> Recogniser:
    """What words were heard with before."""
    asr = PocketSphinxAsr()
    return lambda samples: " ".join(word.text for word in asr.transcribe(samples))


PEERS: Mapping[str, Callable[[str], Recogniser]] = {
    "faster-whisper int8": faster_whisper,
    "moonshine tiny": moonshine,
    "pocketsphinx": pocketsphinx,
}


def opened(args: argparse.Namespace) -> Iterator[tuple[str, Recogniser]]:
    """Yield the recognisers that are there, by name."""
    for weights in args.weights:
        yield f"ours {weights}", ours(args.encoder, args.windows, weights)
    for name, make in PEERS.items():
        if name.split()[0] in args.without:
            continue
        try:
            yield name, make(args.encoder)
        except (ImportError, MissingDependencyError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a manifest, or a folder of RAVDESS")
    parser.add_argument("--clips", type=int, help="so many of them, evenly spread")
    parser.add_argument("--encoder", default="whisper-tiny.en", help="whisper-tiny.en or whisper-base")
    parser.add_argument("--windows", type=int, nargs="+", default=[200, 460], metavar="ROWS")
    parser.add_argument("--weights", nargs="+", default=["lossless"], choices=["lossless", "half", "int8"])
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out: faster-whisper, moonshine ...")
    args = parser.parse_args()
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    clips = read_clips(args.source)
    clips = clips[:: max(1, len(clips) // (args.clips or len(clips)))][: args.clips]
    recognisers = dict(opened(args))
    records = {name: Record() for name in recognisers}
    for number, clip in enumerate([clips[0], *clips]):  # the first once more: warm-up is not counted
        samples = load_audio(clip.audio)[: max(args.windows) * HOP]
        for name, recognise in recognisers.items():
            start = time.perf_counter()
            said = recognise(samples)
            if number:
                records[name].times_ms.append((time.perf_counter() - start) * 1e3)
                records[name].said.append(said)
    plain = EnglishTextNormalizer({})
    wanted = [plain(clip.said) for clip in clips]
    groups = sorted({clip.group for clip in clips})
    print(f"{'':24}{'p50 ms':>9}{'p95 ms':>9}{'WER':>8}" + "".join(f"{group:>12}" for group in groups))
    for name, record in records.items():
        heard = [plain(said) for said in record.said]
        rates = [jiwer.wer(wanted, heard)]
        for group in groups:
            places = [place for place, clip in enumerate(clips) if clip.group == group]
            rates.append(jiwer.wer([wanted[place] for place in places], [heard[place] for place in places]))
        p50, p95 = np.percentile(record.times_ms, [50, 95])
        print(f"{name:24}{p50:9.0f}{p95:9.0f}{rates[0]:8.3f}" + "".join(f"{rate:12.3f}" for rate in rates[1:]))


if __name__ == "__main__":
    main()
