from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeser.corpora import Utterance, emodb, read_corpus
from edgeser.corpora.emodb import SENTENCES, parse_emodb
from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import EMODB_CODES

NAMES = ("03a01Wa", "08b03Fd", "13b10Ld", "16a07Tb")


@pytest.fixture
def root(clips: list[Path], tmp_path: Path) -> Path:
    """The archive as it unpacks: recordings in `wav`, labels of syllables beside it."""
    root = tmp_path / "emodb"
    for folder in ("wav", "lablaut", "labsilb"):
        (root / folder).mkdir(parents=True)
    for name, clip in zip(NAMES, clips, strict=True):
        shutil.copy(clip, root / "wav" / f"{name}.flac")
        (root / "wav" / f"._{name}.flac").write_bytes(b"Mac OS X")
        (root / "lablaut" / f"{name}.lablaut").write_text("0.1 121 .\n")
    (root / "erkennung.txt").write_text("Satz \tErkannt", encoding="latin-1")
    return root


def read(path: Path) -> list[Utterance]:
    return read_corpus(f"emodb:{path}")


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_recordings_are_read(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(emodb, "FULL_RELEASE", 4)
    utterances = read(root)
    assert caplog.records == []
    assert utterances[0] == Utterance(
        "03a01Wa",
        root / "wav" / "03a01Wa.flac",
        "angry",
        "Der Lappen liegt auf dem Eisschrank.",
        speaker="03",
        corpus="emodb",
    )
    assert [u.id for u in utterances] == list(NAMES)
    assert [u.emotion for u in utterances] == ["angry", "happy", "boredom", "sad"]
    assert [u.speaker for u in utterances] == ["03", "08", "13", "16"]
    assert {(u.session, u.split) for u in utterances} == {("", "")}
    assert all(load_audio(u.audio).shape[0] > 3 * 16000 for u in utterances)
    assert [u.id for u in read(root / "wav")] == list(NAMES)


def test_missing_speakers_and_other_files_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "wav" / "03a01Xa.wav").touch()
    assert len(read(root)) == 4
    assert warning(caplog) == (
        f"{root}: 4 utterances, EmoDB has 535; missing: 6 speakers (09, 10, 11, ...); left out: 1 file (03a01Xa)"
    )


def test_another_folder(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"no recording among 0 audio files, expected EmoDB's folder with files such as"
    ):
        read(root / "lablaut")
    with pytest.raises(InputError, match="gone: no such folder, expected EmoDB's folder"):
        read(root / "gone")


def test_ten_sentences_and_seven_emotions_have_a_code() -> None:
    assert list(SENTENCES) == ["a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10"]
    assert len(set(SENTENCES.values())) == 10
    assert all(sentence[-1] in ".?" for sentence in SENTENCES.values())
    for code, emotion in EMODB_CODES.items():
        utterance = parse_emodb(Path(f"11b09{code}c.wav"))
        assert utterance is not None
        assert (utterance.emotion, utterance.transcript) == (emotion, SENTENCES["b09"])


@pytest.mark.parametrize(
    "name", ["03a03Wa", "03a01W", "03a01wa", "03a01Waa", "3a01Wa", "03a01Ga", "\u0660\u0663a01Wa", "03A01Wa"]
)
def test_other_names_are_left_out(name: str) -> None:
    assert parse_emodb(Path(f"{name}.wav")) is None


@given(st.text(max_size=10) | st.from_regex(r"[01]\d[ab][01]\d[A-Z][a-z]?", fullmatch=True))
@example("")
@example("03a01Wa\n")
def test_no_name_is_too_strange(name: str) -> None:
    utterance = parse_emodb(Path(f"{name}.wav"))
    assert utterance is None or (utterance.emotion in EMODB_CODES.values() and utterance.id == name)
