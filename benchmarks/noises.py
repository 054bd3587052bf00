"""What a stream answers where nobody speaks: noise, silence and hum, streamed through the detector of speech.

Each manifest is a CSV with `audio`, a path relative to it, and `kind`. A second of silence follows every recording.

  python benchmarks/noises.py noise/manifest.csv
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from speech import recordings

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import Event

_PAUSE = np.zeros(SAMPLE_RATE, np.float32)


def parts(manifests: list[Path]) -> Iterator[tuple[str, Samples]]:
    """Yield what is streamed, with its kind: the recordings, and what no recording is needed for."""
    for manifest in manifests:
        for path, kind in recordings(manifest, ["kind"], {}):
            yield kind, load_audio(path)
    time_s = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    yield "digital silence", np.zeros(time_s.shape[0], np.float32)
    for hertz in (50, 60, 100):
        for level_db in (-50, -30, -10):
            level = 10 ** (level_db / 20)
            yield (
                f"hum, {hertz} Hz",
                (level * np.sin(2 * np.pi * hertz * time_s[: 10 * SAMPLE_RATE])).astype(np.float32),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--asr", default="auto", help="as of `edgeser listen`")
    args = parser.parse_args()

    found: list[tuple[str, Event]] = []
    seconds: Counter[str] = Counter()
    kind = ""
    with Runtime.load(args.bundle, engine=args.engine, asr=args.asr) as runtime:
        print(f"{runtime.bundle.manifest.name}, {runtime.engine.name}, words by {runtime.asr.name}")
        with runtime.open_stream(lambda event: found.append((kind, event))) as stream:
            for kind, samples in parts(args.manifests):
                stream.push(samples, wait=True)
                stream.push(_PAUSE, wait=True)
                stream.flush()
                seconds[kind] += samples.shape[0] / SAMPLE_RATE
    print(f"{'':<24}{'minutes':>10}{'events':>10}{'emotions':>10}{'words':>10}")
    for name in [*seconds, "all"]:
        events = [event for kind, event in found if name in (kind, "all")]
        minutes = (sum(seconds.values()) if name == "all" else seconds[name]) / 60
        emotions = sum(event.label in event.result.probabilities for event in events)
        words = sum(bool(event.result.transcript) for event in events)
        print(f"{name:<24}{minutes:>10.1f}{len(events):>10}{emotions:>10}{words:>10}")
    for name, event in found:
        if event.result.transcript:
            print(f"{name}: {event.result.transcript!r}, {event.words.value}")


if __name__ == "__main__":
    main()
