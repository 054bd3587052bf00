from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeser.corpora import Utterance, ravdess, read_corpus
from edgeser.corpora.ravdess import parse_ravdess
from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import RAVDESS_CODES


@pytest.fixture
def root(clips: list[Path], tmp_path: Path) -> Path:
    """The usual download: each actor's folder, all of it again in a folder beside them, and what else lies about."""
    root = tmp_path / "RAVDESS"
    for clip in clips:
        for place in (root, root / "audio_speech_actors_01-24"):
            folder = place / f"Actor_{clip.stem[-2:]}"
            folder.mkdir(parents=True)
            shutil.copy(clip, folder)
            (folder / f"._{clip.name}").write_bytes(b"Mac OS X")
    songs = root / "audio_song_actors_01-24" / "Actor_02"
    songs.mkdir(parents=True)
    shutil.copy(clips[0], songs / "03-02-01-01-02-02-02.flac")
    videos = root / "Video_Speech_Actor_02" / "Actor_02"
    videos.mkdir(parents=True)
    for modality in ("01", "02"):
        (videos / f"{modality}-01-01-01-02-02-02.mp4").write_bytes(b"video")
    (root / "README.txt").write_text("RAVDESS")
    return root


def read(path: Path) -> list[Utterance]:
    return read_corpus(f"ravdess:{path}")


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_speech_is_read_each_recording_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ravdess, "FULL_RELEASE", 4)
    utterances = read(root)
    assert caplog.records == []
    assert utterances[0] == Utterance(
        "03-01-01-01-02-02-02",
        root / "Actor_02" / "03-01-01-01-02-02-02.flac",
        "neutral",
        "Dogs are sitting by the door.",
        speaker="02",
        corpus="ravdess",
    )
    assert [u.id for u in utterances] == sorted(u.id for u in utterances)
    assert [u.emotion for u in utterances] == ["neutral", "happy", "sad", "angry"]
    assert [u.transcript for u in utterances[2:]] == ["Kids are talking by the door."] * 2
    assert [u.speaker for u in utterances] == ["02", "11", "19", "12"]
    assert {(u.session, u.split) for u in utterances} == {("", "")}
    assert all(load_audio(u.audio).shape[0] > 3 * 16000 for u in utterances)


def test_a_part_of_the_release_is_read_alike(root: Path) -> None:
    nested = root / "audio_speech_actors_01-24"
    assert [u.id for u in read(nested)] == [u.id for u in read(root)]
    assert [u.id for u in read(root / "Actor_02")] == ["03-01-01-01-02-02-02"]


def test_missing_actors_and_other_files_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(next(root.glob("Actor_02/0*.flac")), root / "Actor_02" / "03-01-01-01-02-02-02 (1).flac")
    assert len(read(root)) == 4
    assert warning(caplog) == (
        f"{root}: 4 utterances, RAVDESS speech has 1,440; missing: 20 actors (01, 03, 04, ...); "
        "left out: 1 file (03-01-01-01-02-02-02 (1))"
    )


def test_songs_alone_are_no_speech(root: Path) -> None:
    with pytest.raises(
        InputError, match="no spoken recording among 1 audio files, expected RAVDESS's folders Actor_01"
    ):
        read(root / "audio_song_actors_01-24")
    with pytest.raises(InputError, match="gone: no such folder, expected RAVDESS's folders"):
        read(root / "gone")


def test_a_full_release_by_name() -> None:
    """60 recordings of each of 24 actors: neutral is never said strongly."""
    names = [
        f"03-01-{emotion}-{strength}-{statement}-{take}-{actor:02d}.wav"
        for emotion in RAVDESS_CODES
        for strength in ("01", "02")
        if (emotion, strength) != ("01", "02")
        for statement in ("01", "02")
        for take in ("01", "02")
        for actor in range(1, 25)
    ]
    utterances = [parse_ravdess(Path(name)) for name in names]
    assert len(utterances) == ravdess.FULL_RELEASE
    assert Counter(u.emotion for u in utterances if u) == {**dict.fromkeys(RAVDESS_CODES.values(), 192), "neutral": 96}
    assert set(Counter(u.speaker for u in utterances if u).values()) == {60}


@pytest.mark.parametrize(
    "name",
    [
        "03-02-05-01-01-02-12",  # a song
        "01-01-05-01-01-02-12",  # a video with sound
        "02-01-05-01-01-02-12",  # a video
        "03-01-09-01-01-02-12",
        "03-01-05-01-03-02-12",
        "03-01-05-01-01-02-25",
        "03-01-05-01-01-02-00",
        "03-01-05-01-01-02",
        "03-01-05-01-01-02-12-1",
        "\u0660\u0663-01-05-01-01-02-12",
    ],
)
def test_other_names_are_left_out(name: str) -> None:
    assert parse_ravdess(Path(f"{name}.wav")) is None


@given(st.text(max_size=24) | st.lists(st.integers(0, 30).map("{:02d}".format), max_size=8).map("-".join))
@example("")
@example("03-01-05-01-01-02-12\n")
def test_no_name_is_too_strange(name: str) -> None:
    utterance = parse_ravdess(Path(f"{name}.wav"))
    assert utterance is None or (utterance.emotion in RAVDESS_CODES.values() and 1 <= int(utterance.speaker) <= 24)
