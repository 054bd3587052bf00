"""Count a corpus: utterances of each split, session, speaker and emotion, and how long they last.

Durations are those of what is in the audio files, not what their headers say; a recording that several utterances
share counts once. What a corpus lacks is said on stderr. A path alone will do where its layout is that of a corpus that
is known.

examples:
  edgeser corpus IEMOCAP_full_release
  edgeser corpus meld:MELD.Raw
  edgeser corpus manifest:corpus.csv --json
  edgeser corpus manifest:proxy/manifest.csv 'manifest:voices/manifest.csv?role=train'
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence

from edgeser.cli.options import add_json_option, print_json, show
from edgeser.corpora import READERS, Utterance, as_spec, corpus_text, read_corpus, recognise_corpus
from edgeser.corpora.checking import extent_problem
from edgeser.runtime.decoding import measure_audio
from edgeser.runtime.errors import InputError, MissingDependencyError

UNKNOWN = "unknown"
_SPLITS = ("train", "dev", "test")
_SPEAKERS = 40  # of more, MELD has 300 and LSSED 820, the text shows the most frequent, JSON all
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
        truncated: Files that are cut short, and how many seconds of them are there.
    """

    recordings: int
    hours: float
    mean_s: float | None
    shortest_s: float | None
    longest_s: float | None
    unreadable: Mapping[str, str]
    truncated: Mapping[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "corpus",
        nargs="+",
        metavar="SPEC",
        help=f"{', '.join(READERS)}, each with :PATH, or a path alone; ?role=train behind it chooses rows (quote it)",
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    spec = as_spec([recognise_corpus(one) for one in args.corpus])
    utterances = read_corpus(spec)
    groups = {
        "corpora": count_emotions(utterances, [u.corpus for u in utterances]),
        "languages": count_emotions(utterances, [u.language for u in utterances]),
        "splits": count_emotions(utterances, [u.split for u in utterances]),
        "sessions": count_emotions(utterances, [u.session for u in utterances]),
        "speakers": count_emotions(utterances, [u.speaker for u in utterances]),
    }
    (everything,) = count_emotions(utterances, ["all"] * len(utterances)).values()
    durations = measure_durations(utterances)
    if args.json:
        report = {"corpus": spec, "utterances": len(utterances), "emotions": everything}
        print_json({**report, **groups, "durations": dataclasses.asdict(durations)})
        return 0
    show(f"{corpus_text(spec)}   {len(utterances):,} utterances\n")
    show(_counts_text(groups, everything, durations))
    return 0


def count_emotions(utterances: Sequence[Utterance], groups: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the emotions of each group, sorted by name (splits as they are used); `unknown`, for no name, is last.

    Args:
        utterances: At least one.
        groups: The group of each utterance, for example its session.
    """
    counts = Counter((group or UNKNOWN, u.emotion or UNKNOWN) for group, u in zip(groups, utterances, strict=True))
    rows, columns = (sorted(set(names), key=_order) for names in zip(*counts, strict=True))
    return {row: {column: counts[row, column] for column in columns} for row in rows}


def _order(name: str) -> tuple[bool, int, str]:
    return (name == UNKNOWN, _SPLITS.index(name) if name in _SPLITS else len(_SPLITS), name)


def measure_durations(utterances: Sequence[Utterance]) -> Durations:
    """Measure every recording once: what is in its file, and the utterance's extent."""
    measured = functools.cache(measure_audio)
    lengths: list[float] = []
    unreadable: dict[str, str] = {}
    truncated: dict[str, float] = {}
    for audio, start_s, end_s in dict.fromkeys(u.recording for u in utterances):
        try:
            if problem := extent_problem(start_s, end_s):
                raise InputError(problem)
            whole_s, cut = measured(audio)
            if start_s >= whole_s:
                raise InputError(f"lasts {whole_s:.2f} s, an utterance starts at {start_s:.2f} s")
        except (InputError, MissingDependencyError) as error:
            unreadable.setdefault(audio, str(error).removeprefix(f"{audio}: "))
        else:
            lengths.append((whole_s if end_s is None else min(end_s, whole_s)) - start_s)
            if cut and (end_s is None or end_s > whole_s):
                truncated.setdefault(audio, whole_s)
    return Durations(
        recordings=len(lengths),
        hours=sum(lengths) / 3600,
        mean_s=sum(lengths) / len(lengths) if lengths else None,
        shortest_s=min(lengths, default=None),
        longest_s=max(lengths, default=None),
        unreadable=unreadable,
        truncated=truncated,
    )


def _counts_text(
    groups: Mapping[str, Mapping[str, Mapping[str, int]]], everything: Mapping[str, int], durations: Durations
) -> str:
    speakers = dict(sorted(groups["speakers"].items(), key=lambda row: -sum(row[1].values()))[:_SPEAKERS])
    tables = {
        "corpus": groups["corpora"] if len(groups["corpora"]) > 1 else {},
        "language": groups["languages"] if set(groups["languages"]) != {UNKNOWN} else {},
        "split": groups["splits"] if set(groups["splits"]) != {UNKNOWN} else {},
        "session": {**groups["sessions"], "all": everything},
        "speaker": {name: row for name, row in groups["speakers"].items() if name in speakers},
    }
    width = max(map(len, ("unreadable", *(name for rows in tables.values() for name in rows))))
    parts = [_table(title, rows, width) for title, rows in tables.items() if rows]
    more = len(groups["speakers"]) - len(speakers)
    if more:
        parts[-1] += f"\nand {more:,} speaker{'s' if more > 1 else ''} with fewer utterances; --json names all"
    return "\n\n".join([*parts, _durations_text(durations, width)])


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
    if durations.truncated:
        lines.append(f"{'cut short':<{width}}  {_files(len(durations.truncated))}, counted as far as they go")
    return "\n".join(lines)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
