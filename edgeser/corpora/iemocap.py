"""`iemocap:DIR`: IEMOCAP as it is released, reduced to the papers' four emotions.

Of each session are read `dialog/EmoEvaluation/*.txt` (labels), `dialog/transcriptions/*.txt` (words) and
`sentences/wav/<dialog>/<turn>.wav`, one file a turn. Words come as transcribed, marks such as `[LAUGHTER]` included.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgeser.corpora.folder import check_folder, several
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import emotion_name

EMOTIONS: Mapping[str, str] = MappingProxyType(
    {label: emotion_name(label) for label in ("ang", "neu", "hap", "exc", "sad")}
)
"""Labels that are used, and what they count as; turns with another label are left out."""

FULL_RELEASE: Mapping[str, int] = MappingProxyType({"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084})
"""Utterances of each emotion in a complete copy, 5,531 in all."""

SESSIONS = ("1", "2", "3", "4", "5")
RELEASE = "IEMOCAP_full_release"

_EXPECTED = f"IEMOCAP's own layout with Session1 to Session5: give the unpacked {RELEASE} folder"
_TURN = r"(Ses0[1-5][FM]_\w+_[FM][0-9A-Za-z]*)"
_EVALUATION = re.compile(rf"\s*\[[^\]]*\]\s*{_TURN}\s+(\w+)", re.ASCII)
_TRANSCRIPTION = re.compile(rf"\s*{_TURN}\s*(?:\[[^\]]*\]\s*)?:(.*)", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Turn:
    name: str
    label: str
    folder: Path

    @property
    def dialog(self) -> str:
        return self.name.rpartition("_")[0]

    @property
    def session(self) -> str:
        return self.name[4]

    @property
    def speaker(self) -> str:
        # The F or M in a dialog's name says who wore the motion-capture markers; who speaks stands in the last part.
        return self.name[:5] + self.name.rpartition("_")[2][0]

    @property
    def audio(self) -> Path:
        return self.folder / "sentences" / "wav" / self.dialog / f"{self.name}.wav"

    def utterance(self, words: Mapping[str, str]) -> Utterance:
        return Utterance(
            id=self.name,
            audio=self.audio,
            emotion=EMOTIONS[self.label],
            transcript=words.get(self.name),
            speaker=self.speaker,
            session=self.session,
        )


def read_iemocap(path: Path) -> Iterator[Utterance]:
    """Read a release's angry, happy (or excited), neutral and sad turns, sorted by name.

    Turns without a wav file are left out. A copy that is not complete is read all the same, with one warning that
    names what it lacks.

    Args:
        path: `IEMOCAP_full_release`, or the folder that holds it.

    Raises:
        InputError: The folder is not IEMOCAP's, or has no labels.
    """
    folders = _session_folders(path)
    turns, ambiguous = _read_turns(path, folders)
    words, transcribed = _read_words(folders)
    wanted = [turn for turn in turns if turn.label in EMOTIONS]
    utterances = [turn.utterance(words) for turn in wanted if turn.audio.is_file()]
    there = {utterance.id for utterance in utterances}
    evaluated = {turn.dialog for turn in turns}
    missing = [
        several("session", sorted(set(SESSIONS) - {turn.session for turn in turns})),
        several("evaluation file", sorted(transcribed - evaluated)),
        several("transcription file", sorted(evaluated - transcribed)),
        several("wav file", [turn.name for turn in wanted if turn.name not in there]),
    ]
    _warn_of_gaps(path, Counter(EMOTIONS[turn.label] for turn in wanted if turn.name in there), missing, ambiguous)
    yield from utterances


def is_iemocap(path: Path) -> bool:
    """Say whether a folder holds a session of IEMOCAP, or the release does that lies in it."""
    return any((root / f"Session{number}" / "dialog").is_dir() for root in _roots(path) for number in SESSIONS)


def parse_evaluation(line: str) -> tuple[str, str] | None:
    """Return a turn's name and label, `None` for the header, an annotator's line or anything else."""
    match = _EVALUATION.match(line)
    return (match[1], match[2]) if match else None


def parse_transcription(line: str) -> tuple[str, str] | None:
    """Return a turn's name and words, with or without a time between them; `None` for noise lines and anything else."""
    match = _TRANSCRIPTION.match(line)
    return (match[1], match[2].strip()) if match else None


def _roots(path: Path) -> tuple[Path, Path]:
    return (path, path / RELEASE)


def _session_folders(path: Path) -> list[Path]:
    check_folder(path, _EXPECTED)
    for root in _roots(path):
        folders = [folder for number in SESSIONS if (folder := root / f"Session{number}").is_dir()]
        if folders:
            return folders
    raise InputError(f"{path}: holds no Session folder, expected {_EXPECTED}")


def _read_turns(path: Path, folders: Sequence[Path]) -> tuple[list[_Turn], list[str]]:
    """Return every turn once, sorted by name, and the names of those that have two different labels."""
    turns: dict[str, _Turn] = {}
    ambiguous: set[str] = set()
    files = 0
    for folder in folders:
        for file in _text_files(folder / "dialog" / "EmoEvaluation"):
            files += 1
            for name, label in filter(None, map(parse_evaluation, _lines(file))):
                if turns.setdefault(name, _Turn(name, label, folder)).label != label:
                    ambiguous.add(name)
    if not turns:
        raise InputError(
            f"{path}: no label in {files} files of Session*/dialog/EmoEvaluation, expected IEMOCAP's evaluations: "
            "unpack the whole release, not its audio alone"
        )
    return [turns[name] for name in sorted(turns)], sorted(ambiguous)


def _read_words(folders: Sequence[Path]) -> tuple[dict[str, str], set[str]]:
    """Return the words of each turn, and the dialogs that have a file of them."""
    words: dict[str, str] = {}
    dialogs: set[str] = set()
    for folder in folders:
        for file in _text_files(folder / "dialog" / "transcriptions"):
            for name, text in filter(None, map(parse_transcription, _lines(file))):
                words.setdefault(name, text)
                dialogs.add(name.rpartition("_")[0])
    return words, dialogs


def _text_files(folder: Path) -> list[Path]:
    # Copies made on macOS hold a resource fork `._name.txt`, in binary, beside each `name.txt`.
    return sorted(file for file in folder.glob("*.txt") if file.is_file() and not file.name.startswith("."))


def _lines(file: Path) -> Iterator[str]:
    # Lines are split as bytes: 0x85 is an ellipsis in Windows-1252, but a line's end to str.splitlines.
    for line in file.read_bytes().splitlines():
        try:
            yield line.decode("utf-8-sig")
        except UnicodeDecodeError:
            # Windows-1252 is Latin-1 with the quotes and dashes that transcribers type.
            yield line.decode("cp1252", errors="replace")


def _warn_of_gaps(path: Path, found: Counter[str], missing: Sequence[str], ambiguous: Sequence[str]) -> None:
    """Say in one line how a copy differs from the full release; nothing where it does not."""
    lacks = [gap for gap in missing if gap]
    if dict(found) == dict(FULL_RELEASE) and not lacks and not ambiguous:
        return
    reasons = []
    if lacks:
        reasons.append(f"missing: {', '.join(lacks)}")
    if ambiguous:
        reasons.append(f"{several('turn', ambiguous)} with two labels, the first taken")
    counts = ", ".join(f"{emotion} {found[emotion]:,} of {full:,}" for emotion, full in FULL_RELEASE.items())
    _log.warning(
        "%s: %s utterances, the full IEMOCAP release has %s (%s); %s",
        path,
        f"{found.total():,}",
        f"{sum(FULL_RELEASE.values()):,}",
        counts,
        "; ".join(reasons) or "no file is missing, so the labels are other ones than the release's",
    )
