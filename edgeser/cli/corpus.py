"""Count a corpus: utterances of each session, speaker and emotion, and how long they last.

Durations come from the headers of the audio files; a recording that several utterances share counts once.

examples:
  edgeser corpus iemocap:IEMOCAP_full_release
  edgeser corpus manifest:corpus.csv --json
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeser.cli.options import add_json_option, print_json
from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.errors import InputError

UNKNOWN = "unknown"
_NAMED = 5  # the text names this many unreadable files, JSON all of them


@dataclasses.dataclass(frozen=True)
class Durations:
    """How long a corpus's recordings last.

    Attributes:
        recordings: Stretches of audio that were measured.
        hours: All of them together.
        mean_s: Mean, seconds; `None`, as are the next two, where nothing could be measured.
        shortest_s: Shortest, seconds.
        longest_s: Longest, seconds.
        unreadable: Files that could not be measured, and why.
    """

    recordings: int
    hours: float
    mean_s: float | None
    shortest_s: float | None
    longest_s: float | None
    unreadable: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="SPEC", help="for example iemocap:DIR or manifest:FILE.csv")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    utterances = read_corpus(args.corpus)
    sessions = count_emotions(utterances, [u.session for u in utterances])
    speakers = count_emotions(utterances, [u.speaker for u in utterances])
    (everything,) = count_emotions(utterances, ["all"] * len(utterances)).values()
    durations = measure_durations(utterances)
    if args.json:
        print_json(
            {
                "corpus": args.corpus,
                "utterances": len(utterances),
                "emotions": everything,
                "sessions": sessions,
                "speakers": speakers,
                "durations": dataclasses.asdict(durations),
            }
        )
        return 0
    width = max(map(len, ("unreadable", *sessions, *speakers)))
    print(f"{args.corpus}   {len(utterances):,} utterances\n")
    print(_table("session", {**sessions, "all": everything}, width), end="\n\n")
    print(_table("speaker", speakers, width), end="\n\n")
    print(_durations_text(durations, width))
    return 0


def count_emotions(utterances: Sequence[Utterance], groups: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the emotions of each group, sorted by name; `unknown` stands for no name, and last.

    Args:
        utterances: At least one.
        groups: The group of each utterance, for example its session.
    """
    counts = Counter((group or UNKNOWN, u.emotion or UNKNOWN) for group, u in zip(groups, utterances, strict=True))
    rows, columns = (sorted(set(names), key=_unknown_last) for names in zip(*counts, strict=True))
    return {row: {column: counts[row, column] for column in columns} for row in rows}


def _unknown_last(name: str) -> tuple[bool, str]:
    return (name == UNKNOWN, name)


def measure_durations(utterances: Sequence[Utterance]) -> Durations:
    """Measure every recording once, from its file's header and the utterance's extent."""
    file_duration_s = functools.cache(_file_duration_s)
    lengths: list[float] = []
    unreadable: dict[str, str] = {}
    for audio, start_s, end_s in dict.fromkeys(u.recording for u in utterances):
        try:
            whole_s = file_duration_s(audio)
            if start_s >= whole_s:
                raise InputError(f"lasts {whole_s:.2f} s, an utterance starts at {start_s:.2f} s")
        except InputError as error:
            unreadable.setdefault(audio, str(error))
        else:
            lengths.append((whole_s if end_s is None else min(end_s, whole_s)) - start_s)
    return Durations(
        recordings=len(lengths),
        hours=sum(lengths) / 3600,
        mean_s=sum(lengths) / len(lengths) if lengths else None,
        shortest_s=min(lengths, default=None),
        longest_s=max(lengths, default=None),
        unreadable=unreadable,
    )


def _file_duration_s(audio: str) -> float:
    import soundfile

    if not Path(audio).is_file():
        raise InputError("no such file")
    try:
        header = soundfile.info(audio)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: headerless `.raw`
        raise InputError("not readable as audio, expected WAV, FLAC or OGG") from error
    if header.frames == 0:
        raise InputError("holds no samples")
    return float(header.frames / header.samplerate)


def _table(title: str, rows: Mapping[str, Mapping[str, int]], width: int) -> str:
    emotions = list(next(iter(rows.values())))
    lines = [f"{title:<{width}}" + "".join(f"{name:>10}" for name in (*emotions, "total"))]
    for name, row in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{count:>10,}" for count in (*row.values(), sum(row.values()))))
    return "\n".join(lines)


def _durations_text(durations: Durations, width: int) -> str:
    text = f"{'durations':<{width}}  {durations.hours:.2f} h in {durations.recordings:,} recordings"
    if durations.mean_s is not None:
        text += f"   mean {durations.mean_s:.2f} s"
        text += f"   shortest {durations.shortest_s:.2f} s   longest {durations.longest_s:.2f} s"
    lines = [text]
    if durations.unreadable:
        lines.append(f"{'unreadable':<{width}}  {_files(len(durations.unreadable))}")
        lines += [f"  {file}: {why}" for file, why in list(durations.unreadable.items())[:_NAMED]]
        more = len(durations.unreadable) - _NAMED
        lines += [f"  and {_files(more)} more; --json names all"] if more > 0 else []
    return "\n".join(lines)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
