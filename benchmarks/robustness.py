"""How well a bundle recognises a voice in noise, in babble, in rooms, by telephone, at low levels and from short clips.

Unweighted accuracy of the voice alone, by corpus, through the Runtime. Noises and rooms are of the test split, which
training with `--noise` never draws from; babble is of other recordings of the same corpus. Each clip has its own
noise, place in it and room, the same at every ratio. Intervals are a bootstrap over the speakers of each corpus. With
`--normalize run` the mean of all clips of a corpus in one condition is taken out of their rows, as a device has it that
heard them all.

  python benchmarks/robustness.py --corpus 'manifest:voices/manifest.csv?role=test' --noise manifest:noise/manifest.csv
"""

from __future__ import annotations

import argparse
import shlex
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.checking import usable_utterances
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.frontends import Rows
from edgeser.runtime.normalization import NONE, RUN
from edgeser.runtime.recognizer import Runtime
from edgeser.training.evaluation import HeldOut
from edgeser.training.intervals import LEVEL, speaker_interval
from edgeser.training.noises import NoiseBank, read_noises
from edgeser.training.waveforms import AcousticCondition, apply

_BATCH = 8
_VOICES = 4  # of babble
_SNR_DB = (20.0, 10.0, 5.0, 0.0)
_PEAKS_DBFS = (-40.0, -30.0, -20.0, -10.0, -3.0, 0.0)
_SECONDS = (0.5, 1.0, 2.0, 4.0)
CLEAN = "clean"


@dataclass(frozen=True)
class Trial:
    """What one row of the table does to every clip.

    Attributes:
        name: As the table names it.
        sound: What is added, `noise`, `babble` or `room`; empty for nothing.
        snr_db: Ratio to it.
        telephone: Whether a telephone carries it.
        level_db: Peak level, dBFS; `None` for that of the recording.
        seconds: How much of the start is heard; `None` for all.
    """

    name: str
    sound: str = ""
    snr_db: float = 0.0
    telephone: bool = False
    level_db: float | None = None
    seconds: float | None = None


TRIALS = (
    Trial(CLEAN),
    *(Trial(f"{sound}, {snr:g} dB", sound, snr) for sound in ("noise", "babble") for snr in _SNR_DB),
    Trial("room", "room"),
    Trial("telephone", telephone=True),
    *(Trial(f"peak at {level:g} dBFS", level_db=level) for level in _PEAKS_DBFS),
    *(Trial(f"first {seconds:g} s", seconds=seconds) for seconds in _SECONDS),
)


def condition(trial: Trial, utterance: Utterance, bank: NoiseBank) -> AcousticCondition:
    """Return what a trial does to an utterance; what is drawn for it depends on its id alone."""
    rng = np.random.default_rng(zlib.crc32(utterance.id.encode()))
    noise, room = (files[rng.integers(len(files))] if files else "" for files in (bank.noises, bank.rooms))
    offset = float(rng.random())
    others = [voice for voice in bank.voices if voice != str(utterance.audio)]
    voices = tuple(others[place] for place in rng.permutation(len(others))[:_VOICES])
    return AcousticCondition(
        room=room if trial.sound == "room" else "",
        noise=noise if trial.sound == "noise" else "",
        noise_offset=offset,
        noise_snr_db=trial.snr_db,
        babble=voices if trial.sound == "babble" else (),
        babble_snr_db=trial.snr_db,
        telephone=trial.telephone,
        level_db=trial.level_db,
    )


def heard(trial: Trial, utterance: Utterance, bank: NoiseBank) -> Samples:
    """Return the samples of an utterance as a trial lets it be heard."""
    samples = load_utterance(utterance)
    if trial.seconds is not None:
        samples = samples[: round(trial.seconds * SAMPLE_RATE)]
    return apply(samples, condition(trial, utterance, bank))


def run_shift(runtime: Runtime, audio: Iterable[Samples]) -> Rows:
    """Return what is taken out of the rows of clips when all of them have been heard."""
    state = runtime.open_state()
    for samples in audio:
        mean = runtime.mean_of(samples)
        if mean is not None:
            state.add(mean)
    return runtime.normalization.shift(state)


def answers(runtime: Runtime, clips: Sequence[Samples], shift: Rows | None = None) -> list[str]:
    """Return the label of each clip; a shift is taken out of its rows."""
    labels: list[str] = []
    for start in range(0, len(clips), _BATCH):
        batch = clips[start : start + _BATCH]
        found = runtime.recognize_batch(batch, [""] * len(batch), [shift] * len(batch))
        labels += [one.label for one in found]
    return labels


def subset(utterances: Sequence[Utterance], count: int, seed: int) -> list[Utterance]:
    """Choose about `count` utterances, equally many of each emotion as far as there are; 0 for all."""
    if not count:
        return list(utterances)
    groups: dict[str | None, list[Utterance]] = defaultdict(list)
    for utterance in sorted(utterances, key=lambda one: one.id):
        groups[utterance.emotion].append(utterance)
    rng = np.random.default_rng(seed)
    each = -(-count // len(groups))
    return [group[place] for group in groups.values() for place in sorted(rng.permutation(len(group))[:each])]


def by_corpus(specs: Sequence[str], labels: Sequence[str], count: int, seed: int) -> dict[str, list[Utterance]]:
    """Read corpora, one recording once, with the emotions that the model knows."""
    recordings = {u.recording: u for u in read_corpus(specs) if u.emotion in labels}
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in usable_utterances(list(recordings.values())):
        groups[utterance.corpus].append(utterance)
    return {name: subset(group, count, seed) for name, group in groups.items()}


def table(measured: Mapping[str, Mapping[str, HeldOut]]) -> Iterator[str]:
    """Yield a Markdown table: a row for each trial, a column for each corpus, their mean, and what it lost."""
    corpora = list(next(iter(measured.values())))
    means = {name: float(np.mean([one.metrics.ua for one in row.values()])) for name, row in measured.items()}
    yield f"| condition | {' | '.join(corpora)} | mean | {100 * LEVEL:g} % over speakers | change | no speech |"
    yield f"|---|{'---|' * (len(corpora) + 4)}"
    for name, row in measured.items():
        cells = " | ".join(f"{row[corpus].metrics.ua:.3f}" for corpus in corpora)
        interval = speaker_interval([[one.speakers for one in row.values()]], "ua") or ""
        change = "" if name == CLEAN else f"{100 * (means[name] - means[CLEAN]):+.1f}"
        unanswered = sum(sum(one.metrics.unanswered) for one in row.values())
        yield f"| {name} | {cells} | {means[name]:.3f} | {interval} | {change} | {unanswered} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="the one that ships")
    parser.add_argument("--corpus", action="append", required=True, metavar="READER:PATH", help="may be given again")
    parser.add_argument("--noise", required=True, metavar="manifest:FILE", help="id, audio, kind; of the test split")
    parser.add_argument("--clips", type=int, default=0, metavar="N", help="of each corpus, balanced; all")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of clips (1)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows that begin so, for example noise peak")
    parser.add_argument("--normalize", choices=(NONE, RUN), default=NONE, help="take out the mean of what was heard")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    bank = read_noises(args.noise, "test")
    trials = [t for t in TRIALS if t.name == CLEAN or not args.only or t.name.startswith(tuple(args.only))]
    with Runtime.load(args.bundle, engine=args.engine, asr="none", threads=args.threads) as runtime:
        corpora = by_corpus(args.corpus, runtime.labels, args.clips, args.seed)
        measured = measure_all(runtime, corpora, trials, bank, args.normalize)
    sizes = ", ".join(f"{name} {len(group)}" for name, group in corpora.items())
    print("\n".join(table(measured)))
    print(f"\nUA, voice alone; clips: {sizes}; change of the mean in points.")
    print(f"`python {shlex.join(sys.argv)}`")


def measure_all(
    runtime: Runtime,
    corpora: Mapping[str, Sequence[Utterance]],
    trials: Sequence[Trial],
    bank: NoiseBank,
    normalize: str = NONE,
) -> dict[str, dict[str, HeldOut]]:
    """Return, by trial and corpus, how well the clips are recognised."""
    measured: dict[str, dict[str, HeldOut]] = {trial.name: {} for trial in trials}
    with tqdm(total=len(trials) * sum(map(len, corpora.values())), unit="clip", disable=None) as progress:
        for name, group in corpora.items():
            voices = NoiseBank(bank.noises, bank.rooms, tuple(sorted({str(u.audio) for u in group})))
            for trial in trials:
                clips = [heard(trial, one, voices) for one in group]
                shift = run_shift(runtime, clips) if normalize == RUN else None
                found = answers(runtime, clips, shift)
                measured[trial.name][name] = HeldOut.of_answers(group, found, runtime.labels)
                progress.update(len(group))
    return measured


if __name__ == "__main__":
    main()
