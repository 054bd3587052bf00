from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from edgeser.cli import corpus
from edgeser.cli.corpus import UNKNOWN, measure_durations
from edgeser.cli.main import main
from edgeser.corpora import Utterance

SPLIT_ROWS = [("sad", "train"), ("angry", "train"), ("sad", "dev"), ("angry", "test"), ("sad", "")]


def counted(capsys: pytest.CaptureFixture, spec: str) -> dict:
    assert main(["corpus", spec, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def manifest(folder: Path, rows: str) -> str:
    file = folder / "m.csv"
    file.write_text(f"id,audio,emotion,speaker,session,start_s,end_s\n{rows}", encoding="utf-8")
    return f"manifest:{file}"


def test_json_of_iemocap(iemocap: Path, capsys: pytest.CaptureFixture) -> None:
    report = counted(capsys, f"iemocap:{iemocap}")
    assert report["utterances"] == 50
    assert report["emotions"] == {"angry": 10, "happy": 20, "neutral": 10, "sad": 10}
    row = {"angry": 2, "happy": 4, "neutral": 2, "sad": 2}
    assert report["sessions"] == dict.fromkeys("12345", row)
    assert list(report["speakers"]) == [f"Ses0{n}{gender}" for n in range(1, 6) for gender in "FM"]
    assert report["speakers"]["Ses01M"] == {"angry": 1, "happy": 2, "neutral": 1, "sad": 1}
    assert report["durations"] == {
        "recordings": 50,
        "hours": pytest.approx(100 / 3600),
        "mean_s": 2.0,
        "shortest_s": 2.0,
        "longest_s": 2.0,
        "unreadable": {},
        "truncated": {},
    }


def test_text_has_a_row_for_each_session_and_speaker(iemocap: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["corpus", f"iemocap:{iemocap}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"iemocap:{iemocap}   50 utterances"
    rows = [line.split() for line in lines]
    assert rows[2] == ["session", "angry", "happy", "neutral", "sad", "total"]
    assert rows[3] == ["1", "2", "4", "2", "2", "10"]
    assert rows[8] == ["all", "10", "20", "10", "10", "50"]
    assert rows[10] == ["speaker", "angry", "happy", "neutral", "sad", "total"]
    assert rows[11] == ["Ses01F", "1", "2", "1", "1", "5"]
    assert len({len(line) for line in [*lines[2:9], *lines[10:21]]}) == 1
    assert lines[-1].split(maxsplit=1)[1] == (
        "0.03 h in 50 recordings   mean 2.00 s   shortest 2.00 s   longest 2.00 s"
    )


def test_a_plain_folder_is_recognised(iemocap: Path, capsys: pytest.CaptureFixture) -> None:
    named = counted(capsys, f"iemocap:{iemocap}")
    assert counted(capsys, str(iemocap)) == named
    assert counted(capsys, str(iemocap.parent))["sessions"] == named["sessions"]


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("lssed", "lssed/wav/a.flac"),
        ("ravdess", "ravdess/Actor_02/03-01-01-01-02-02-02.flac"),
        ("emodb", "emodb/wav/03a01Wa.flac"),
        ("meld", "meld/MELD.Raw/dev_splits_complete/dia0_utt0.flac"),
    ],
)
def test_each_corpus_is_recognised_by_its_layout(
    reader: str, name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    audio = tmp_path / name
    audio.parent.mkdir(parents=True)
    shutil.copy(clip, audio)
    (tmp_path / "lssed").mkdir(exist_ok=True)
    (tmp_path / "lssed" / "metadata.csv").write_text("file,emotion\na,sad\n")
    (tmp_path / "meld").mkdir(exist_ok=True)
    (tmp_path / "meld" / "dev_sent_emo.csv").write_text(
        "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\nHi,Ross,sadness,0,0\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    report = counted(capsys, f"~/{reader}")
    assert (report["corpus"], report["utterances"]) == (f"{reader}:~/{reader}", 1)
    assert report["durations"]["recordings"] == 1


def test_a_plain_table_is_a_manifest(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = manifest(tmp_path, f"a,{clip},sad,x,1,,\n")
    assert counted(capsys, spec.removeprefix("manifest:"))["corpus"] == spec


def test_official_splits_are_counted_in_their_order(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [f"{n},{clip},{label},{split}\n" for n, (label, split) in enumerate(SPLIT_ROWS)]
    (tmp_path / "m.csv").write_text("id,audio,emotion,split\n" + "".join(rows))
    report = counted(capsys, f"manifest:{tmp_path / 'm.csv'}")
    assert report["splits"] == {
        "train": {"angry": 1, "sad": 1},
        "dev": {"angry": 0, "sad": 1},
        "test": {"angry": 1, "sad": 0},
        UNKNOWN: {"angry": 0, "sad": 1},
    }
    assert list(report["splits"]) == ["train", "dev", "test", UNKNOWN]
    assert main(["corpus", f"manifest:{tmp_path / 'm.csv'}"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:7]]
    assert rows == [
        ["split", "angry", "sad", "total"],
        ["train", "1", "1", "2"],
        ["dev", "0", "1", "1"],
        ["test", "1", "0", "1"],
        [UNKNOWN, "0", "1", "1"],
    ]


def test_a_corpus_without_splits_has_no_table_of_them(iemocap: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["corpus", f"iemocap:{iemocap}"]) == 0
    assert "split" not in capsys.readouterr().out


def test_of_many_speakers_the_text_shows_those_who_speak_most(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [f"{n}-{speaker},{clip},sad,s{speaker:02d},1,,\n" for speaker in range(45) for n in range(1 + (speaker > 4))]
    spec = manifest(tmp_path, "".join(rows))
    assert len(counted(capsys, spec)["speakers"]) == 45
    assert main(["corpus", spec]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("s") and line[1:3].isdigit()]
    assert shown == [f"s{speaker:02d}" for speaker in range(5, 45)]
    assert "and 5 speakers with fewer utterances; --json names all" in lines


def test_a_copy_with_gaps_is_counted_and_warned_about(
    iemocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(iemocap, tmp_path / "copy"))
    shutil.rmtree(copy / "Session3")
    assert list(counted(capsys, f"iemocap:{copy}")["sessions"]) == ["1", "2", "4", "5"]
    assert "missing: 1 session (3)" in caplog.text


def test_extents_count_and_a_shared_recording_counts_once(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole_s = soundfile.info(clip).duration
    assert whole_s == pytest.approx(3.6035625)
    spec = manifest(
        tmp_path,
        f"a,{clip},sad,x,1,,\n"
        f"b,{clip},angry,x,1,,\n"  # the same recording once more
        f"c,{clip},sad,x,1,0.5,2\n"
        f"d,{clip},sad,x,2,3,\n"
        f"e,{clip},sad,x,2,2.6035625,99\n",
    )
    durations = counted(capsys, spec)["durations"]
    assert durations["recordings"] == 4
    lengths = [whole_s, 1.5, whole_s - 3, 1.0]
    assert durations["hours"] == pytest.approx(sum(lengths) / 3600)
    assert durations["mean_s"] == pytest.approx(sum(lengths) / 4)
    assert durations["shortest_s"] == pytest.approx(whole_s - 3)
    assert durations["longest_s"] == pytest.approx(whole_s)


def test_a_file_is_opened_once_however_many_utterances_it_holds(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    measure = corpus.measure_audio
    monkeypatch.setattr(corpus, "measure_audio", lambda file: (opened.append(file), measure(file))[1])
    measure_durations([Utterance(str(start), clip, start_s=start) for start in range(4)])
    assert opened == [str(clip)]


def test_what_is_not_known_stands_last(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = counted(capsys, manifest(tmp_path, f"a,{clip},,,,,\nb,{clip},surprise,zoe,1,,\nc,{clip},sad,,1,,\n"))
    assert list(report["emotions"].items()) == [("sad", 1), ("surprise", 1), (UNKNOWN, 1)]
    assert list(report["sessions"]) == ["1", UNKNOWN]
    assert report["speakers"][UNKNOWN] == {"sad": 1, "surprise": 0, UNKNOWN: 1}
    assert list(report["speakers"]) == ["zoe", UNKNOWN]


@pytest.fixture
def damaged(clip: Path, tmp_path: Path) -> str:
    """One readable file, and every way in which a file can be no recording."""
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "headerless.raw").write_bytes(bytes(100))
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "empty.wav", [], 16000)
    names = ("gone.wav", "text.wav", "headerless.raw", "folder.wav", "empty.wav")
    rows = [f"{name},{name},sad,x,1,,\n" for name in names]
    late = shutil.copy(clip, tmp_path / "late.flac")
    return manifest(tmp_path, "".join([*rows, f"late,{late},sad,x,1,9,\n", f"good,{clip},sad,x,1,,1.5\n"]))


def test_unreadable_files_are_named_in_json(damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = counted(capsys, damaged)
    assert report["utterances"] == 7
    assert report["durations"]["recordings"] == 1
    assert report["durations"]["mean_s"] == 1.5
    assert report["durations"]["unreadable"] == {
        str(tmp_path / "gone.wav"): "no such file",
        str(tmp_path / "text.wav"): "not readable as audio (Format not recognised): expected WAV, FLAC or OGG",
        str(tmp_path / "headerless.raw"): "not readable as audio (Format not recognised): expected WAV, FLAC or OGG",
        str(tmp_path / "folder.wav"): "no such file",
        str(tmp_path / "empty.wav"): "holds no samples",
        str(tmp_path / "late.flac"): "lasts 3.60 s, an utterance starts at 9.00 s",
    }


def test_unreadable_files_are_counted_and_the_first_named_in_text(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["corpus", damaged]) == 0
    *_, header, first, _, _, _, fifth, more = capsys.readouterr().out.splitlines()
    assert header.split() == ["unreadable", "6", "files"]
    assert first == f"  {tmp_path / 'gone.wav'}: no such file"
    assert fifth == f"  {tmp_path / 'empty.wav'}: holds no samples"
    assert more == "  and 1 file more; --json names all"


def test_nothing_readable(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = manifest(tmp_path, "a,gone.wav,sad,x,1,,\n")
    assert counted(capsys, spec)["durations"]["mean_s"] is None
    assert main(["corpus", spec]) == 0
    *_, durations, unreadable, name = capsys.readouterr().out.splitlines()
    assert durations.split() == ["durations", "0.00", "h", "in", "0", "recordings"]
    assert unreadable.split() == ["unreadable", "1", "file"]
    assert name == f"  {tmp_path / 'gone.wav'}: no such file"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("iemocap", "corpus: got 'iemocap', expected manifest:PATH, iemocap:PATH, meld:PATH, "),
        ("cremad:x", "corpus: got 'cremad:x', expected manifest:PATH, iemocap:PATH, meld:PATH, "),
        (".", "corpus: . is laid out as none that is known: say which one it is, manifest:PATH, iemocap:PATH, "),
        ("meld:.", ".: holds none of train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, expected MELD's tables"),
        ("iemocap:gone", "gone: no such folder, expected IEMOCAP's own layout"),
        ("iemocap:.", ".: holds no Session folder, expected IEMOCAP's own layout"),
        ("manifest:gone.csv", "gone.csv: no such manifest"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["corpus", spec]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"edgeser: {message}")
    assert error.count("\n") == 1
