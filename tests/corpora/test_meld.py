from __future__ import annotations

import json
import logging
import shutil
import string
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.cli.main import main
from edgeser.corpora import Utterance, meld, read_corpus
from edgeser.corpora.meld import COLUMNS, FULL_RELEASE, Row, parse_row
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import SEVEN_EMOTIONS

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
# Rows as the official tables have them: their quotes, their two ways to write a time, their lost numbers, their
# Windows-1252 punctuation (U+0092 and its like, in UTF-8).
TABLES = {
    "train": [
        "1,also I was the point person on my company\x92s transition.,Chandler,neutral,neutral,0,0,8,21,"
        '"00:16:16,059","00:16:21,731"',
        '2,"Now you\x92ll be heading a whole division, so\x85",The Interviewer,neutral,neutral,0,1,8,21,'
        '"00:16:41,126","00:16:44,337"',
        '4,"""Hey, you\'re not Bob.""",Ross,joy,positive,0,3,8,21,"0:02:36,823","0:02:43,620"',
        '5,You\x97Ow!,Joey,anger,negative,0,4,8,21,"0:02:36,823","0:02:43,620"',
        '1200,And that is all.,Ross,neutral,neutral,125,3,8,21,"0:02:36,823","0:02:43,620"',
    ],
    "dev": [
        '1,"Oh my God, he\u2019s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"',
        '2,What?,Monica,surprise,negative,0,1,4,7,"00:21:01,927","00:21:03,261"',
        '1153,Hi.,Ross,neutral,neutral,110,7,4,7,"00:21:01,927","00:21:03,261"',
    ],
    "test": [
        "1,Why do all you\u2019re coffee mugs have numbers on the bottom?,Mark,disgust,negative,0,0,3,19,"
        '"00:14:38,127","00:14:40,378"',
        '2,"Oh. That\u2019s so Monica can keep track.",Rachel,fear,negative,0,1,3,19,"00:14:40,629","00:14:47,385"',
    ],
}
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
NAMES = {
    "train": ["dia0_utt0", "dia0_utt1", "dia0_utt3", "dia0_utt4"],
    "dev": ["dia0_utt0", "dia0_utt1"],
    "test": ["dia0_utt0", "dia0_utt1"],
}
IDS = [f"{split}/{name}" for split, names in NAMES.items() for name in names]


def write_tables(folder: Path, **tables: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (tables or TABLES).items():
        (folder / f"{split}_sent_emo.csv").write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")


def read(path: Path) -> dict[str, Utterance]:
    utterances = read_corpus(f"meld:{path}")
    assert len({u.id for u in utterances}) == len(utterances)
    return {u.id: u for u in utterances}


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    return record.getMessage()


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small tables for complete ones."""
    monkeypatch.setattr(meld, "FULL_RELEASE", {split: len(rows) for split, rows in TABLES.items()})


def pieces(speech: Samples) -> dict[str, Samples]:
    """Another half second of speech for each utterance."""
    return {name: speech[8000 + 3000 * n : 16000 + 3000 * n] for n, name in enumerate(IDS)}


@pytest.fixture
def copies(speech: Samples, tmp_path: Path) -> Path:
    """A release whose sound was converted to WAV, the tables beside it."""
    root = tmp_path / "MELD"
    write_tables(root)
    for name, samples in pieces(speech).items():
        file = root / "audio" / f"{name}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, samples, SAMPLE_RATE, subtype="PCM_16")
    return root


@pytest.fixture(scope="session")
def release(speech: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MELD.Raw as its archives unpack, mp4 and all that lies about in it: read it, do not change it."""
    av: Any = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")
    root = tmp_path_factory.mktemp("meld") / "MELD.Raw"
    write_tables(root, dev=TABLES["dev"], test=TABLES["test"])
    write_tables(root / "train", train=TABLES["train"])
    (root / "README.txt").write_text("MELD")
    for name, samples in pieces(speech).items():
        split, stem = name.split("/")
        file = root / ("train" if split == "train" else "") / FOLDERS[split] / f"{stem}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(file), "w") as container:
            stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[None].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        (file.parent / f"._{stem}.mp4").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    corrupt = root / "train" / "train_splits" / "dia125_utt3.mp4"
    corrupt.write_bytes((corrupt.parent / "dia0_utt0.mp4").read_bytes()[:1500])
    test = root / FOLDERS["test"]
    shutil.copy(test / "dia0_utt1.mp4", test / "final_videos_testdia0_utt0.mp4")
    shutil.copy(test / "dia0_utt1.mp4", test / "dia108_utt2.mp4")  # labelled nowhere
    return root


def test_the_release_has_the_13708_rows_of_its_paper() -> None:
    assert FULL_RELEASE == {"train": 9989, "dev": 1109, "test": 2610}
    assert sum(FULL_RELEASE.values()) == 13708


def test_a_release_is_read_and_its_two_broken_files_are_named(
    release: Path, speech: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    utterances = read(release)
    assert warning(caplog) == (
        f"{release}: 8 of 10 utterances; missing: train/dia125_utt3 and dev/dia110_utt7, "
        "which the release has no usable audio of"
    )
    assert list(utterances) == IDS
    assert utterances["train/dia0_utt1"] == Utterance(
        "train/dia0_utt1",
        release / "train" / "train_splits" / "dia0_utt1.mp4",
        "neutral",
        "Now you\u2019ll be heading a whole division, so\u2026",
        speaker="The Interviewer",
        split="train",
        corpus="meld",
    )
    assert utterances["train/dia0_utt3"].transcript == '"Hey, you\'re not Bob."'
    assert utterances["train/dia0_utt4"].transcript == "You\u2014Ow!"
    assert utterances["test/dia0_utt0"].transcript == "Why do all you\u2019re coffee mugs have numbers on the bottom?"
    assert {u.emotion for u in utterances.values()} == set(SEVEN_EMOTIONS)
    assert Counter(u.split for u in utterances.values()) == {"train": 4, "dev": 2, "test": 2}
    assert {u.session for u in utterances.values()} == {""}
    for name, samples in pieces(speech).items():
        heard = load_audio(utterances[name].audio)[: samples.shape[0]]
        assert np.corrcoef(heard, samples)[0, 1] > 0.99


@pytest.mark.parametrize("above", [1, 2])
def test_folders_above_are_accepted(release: Path, above: int) -> None:
    shallow = release / "train" if above == 2 else release
    assert set(read(shallow.parent)) >= set(read(shallow))


def test_corpus_command(release: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["corpus", str(release), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["corpus"] == f"meld:{release}"
    assert list(report["splits"]) == ["train", "dev", "test"]
    assert report["splits"]["dev"] == {**dict.fromkeys(SEVEN_EMOTIONS, 0), "sad": 1, "surprise": 1}
    assert report["durations"]["recordings"] == 8
    assert report["durations"]["mean_s"] == pytest.approx(0.5, abs=0.01)
    assert report["durations"]["unreadable"] == {}
    assert main(["corpus", str(release)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2] == ["split", *SEVEN_EMOTIONS, "total"]
    assert rows[3] == ["train", "1", "0", "0", "1", "2", "0", "0", "4"]
    assert [row[0] for row in rows[4:6]] == ["dev", "test"]


def test_a_corrupt_file_that_is_not_known_is_named_by_the_corpus_command(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    bad = copy / FOLDERS["dev"] / "dia0_utt1.mp4"
    bad.write_bytes(bad.read_bytes()[:1500])
    assert main(["corpus", str(copy), "--json"]) == 0
    (file, reason), *others = json.loads(capsys.readouterr().out)["durations"]["unreadable"].items()
    assert (file, others) == (str(bad), [])
    assert "not readable as video" in reason


def test_without_the_decoder_a_corpus_is_counted_all_the_same(
    release: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert main(["corpus", str(release), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["utterances"] == 8
    assert len(report["durations"]["unreadable"]) == 8
    assert all("pip install 'edgeser[video]'" in why for why in report["durations"]["unreadable"].values())


class TestCopies:
    def test_wav_copies(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        utterances = read(copies)
        assert list(utterances) == IDS
        assert utterances["dev/dia0_utt1"].audio == copies / "audio" / "dev" / "dia0_utt1.wav"
        assert "8 of 10 utterances; missing: train/dia125_utt3 and dev/dia110_utt7" in warning(caplog)

    def test_a_copy_goes_before_the_video(self, copies: Path) -> None:
        for split in FOLDERS:
            (copies / "audio" / split / "dia0_utt0.mp4").write_bytes(b"video")
            (copies / "audio" / split / "dia0_utt1.mp4").write_bytes(b"video")
            (copies / "audio" / split / "dia0_utt1.wav").rename(copies / "audio" / split / "dia0_utt1.flac")
        suffixes = {u.audio.suffix for u in read(copies).values()}
        assert suffixes == {".wav", ".flac"}

    def test_tables_where_the_repository_has_them(self, copies: Path) -> None:
        expected = [(u.id, u.transcript) for u in read(copies).values()]
        (copies / "data" / "MELD").mkdir(parents=True)
        for table in copies.glob("*.csv"):
            table.rename(copies / "data" / "MELD" / table.name)
        assert [(u.id, u.transcript) for u in read(copies).values()] == expected

    @pytest.mark.parametrize(
        "folders",
        [
            {"train": "train_splits_wav", "dev": "dev_splits_complete_wav", "test": "output_repeated_splits_test_wav"},
            {"train": "MELD.Raw/Train", "dev": "MELD.Raw/Dev", "test": "MELD.Raw/Test"},
        ],
    )
    def test_other_names_of_folders(self, copies: Path, folders: dict[str, str]) -> None:
        for split, name in folders.items():
            (copies / name).parent.mkdir(exist_ok=True)
            (copies / "audio" / split).rename(copies / name)
        assert list(read(copies)) == IDS

    def test_what_is_cut_anew_is_used(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Known to be broken are the release's files, not a WAV that somebody has made good."""
        shutil.copy(copies / "audio/dev/dia0_utt0.wav", copies / "audio/dev/dia110_utt7.wav")
        shutil.copy(copies / "audio/dev/dia0_utt0.wav", copies / "audio/train/dia125_utt3.wav")
        assert len(read(copies)) == 10
        assert caplog.records == []

    def test_the_second_version_of_a_test_file_stands_in_for_the_first(self, copies: Path) -> None:
        test = copies / "audio" / "test"
        twin = Path(shutil.copy(test / "dia0_utt1.wav", test / "final_videos_testdia0_utt0.wav"))
        assert read(copies)["test/dia0_utt0"].audio == test / "dia0_utt0.wav"
        (test / "dia0_utt0.wav").unlink()
        assert read(copies)["test/dia0_utt0"].audio == twin

    def test_missing_and_empty_files_are_counted(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        for name in IDS[:3]:
            (copies / "audio" / f"{name}.wav").unlink()
        (copies / "audio" / f"{IDS[4]}.wav").write_bytes(b"")
        (copies / "audio" / "train" / "dia0_utt1 (1).wav").write_bytes(b"RIFF")
        assert list(read(copies)) == [IDS[3], *IDS[5:]]
        assert warning(caplog).endswith(
            "4 of 10 utterances; missing: train/dia125_utt3 and dev/dia110_utt7, which the release has no usable audio "
            "of, 4 audio files (train/dia0_utt0, train/dia0_utt1, train/dia0_utt3, ...)"
        )

    def test_a_missing_table_is_named(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        (copies / "dev_sent_emo.csv").unlink()
        assert {u.split for u in read(copies).values()} == {"train", "test"}
        assert "1 table (dev_sent_emo.csv)" in warning(caplog)

    def test_rows_of_no_use_are_counted(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        bad = ["1,Hi,Ross,bliss,positive,9,9,,,,", "2,Hi,Ross,joy,positive,x,1,,,,", "3,Hi", TABLES["train"][0], ""]
        write_tables(copies, train=TABLES["train"] + bad)
        assert list(read(copies)) == IDS
        assert "; 4 rows (train_sent_emo.csv line 7, train_sent_emo.csv line 8, train_sent_emo.csv line 9, ...)" in (
            warning(caplog)
        )

    def test_a_shortened_table_is_noticed(self, copies: Path, caplog: pytest.LogCaptureFixture) -> None:
        """As one that was opened and saved with a quote lost."""
        write_tables(copies, train=TABLES["train"][:2])
        read(copies)
        assert "tables differ in length from the release's (train 2 of 5)" in warning(caplog)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
    def test_a_table_saved_by_a_spreadsheet(self, copies: Path, encoding: str) -> None:
        table = copies / "dev_sent_emo.csv"
        expected = read(copies)
        table.write_bytes(table.read_text(encoding="utf-8").encode(encoding).replace(b"\n", b"\r\n"))
        assert read(copies) == expected

    def test_numbers_as_pandas_writes_them(self, copies: Path) -> None:
        expected = read(copies)
        table = copies / "test_sent_emo.csv"
        table.write_text(table.read_text().replace(",0,1,3,19", ",0.0,1.0,3.0,19.0"))
        assert read(copies) == expected

    def test_a_table_without_a_column(self, copies: Path) -> None:
        table = copies / "test_sent_emo.csv"
        table.write_text(table.read_text().replace("Dialogue_ID", "Dialogue").replace("Emotion", "Label"))
        with pytest.raises(InputError, match=r"test_sent_emo\.csv: no column Emotion, Dialogue_ID: expected MELD's he"):
            read(copies)

    def test_a_table_that_is_no_csv(self, copies: Path) -> None:
        (copies / "test_sent_emo.csv").write_text(f'{HEADER}\n1,"{"a" * 200_000}"\n')
        with pytest.raises(InputError, match=r"test_sent_emo\.csv: not readable as CSV: field larger than"):
            read(copies)

    def test_no_audio(self, copies: Path) -> None:
        shutil.rmtree(copies / "audio")
        with pytest.raises(InputError, match="no audio for any of 10 labelled utterances, expected MELD's tables"):
            read(copies)


def test_another_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds none of train_sent_emo\.csv, .*: give the unpacked MELD\.Raw folder"):
        read(tmp_path)
    with pytest.raises(InputError, match="gone: no such folder, expected MELD's tables"):
        read(tmp_path / "gone")


cells = st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["joy", "anger", "0", "17", "3.0", "-1", "\u0661"]))


@given(st.fixed_dictionaries(dict.fromkeys(COLUMNS, cells)))
def test_no_row_is_too_strange(row: dict[str, str | None]) -> None:
    parsed = parse_row(row)
    assert parsed is None or (parsed.emotion in SEVEN_EMOTIONS and parsed.name.startswith("dia"))


@given(
    st.integers(0, 1400),
    st.integers(0, 40),
    st.sampled_from(["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]),
    st.text(string.ascii_letters + " ,.'\u2019").map(str.strip),
)
def test_rows_come_back_as_written(dialogue: int, utterance: int, label: str, words: str) -> None:
    row = {"Utterance": words, "Speaker": "Ross", "Emotion": label}
    expected = parse_row({**row, "Dialogue_ID": str(dialogue), "Utterance_ID": f"{utterance}.0"})
    assert expected is not None
    assert expected == Row(f"dia{dialogue}_utt{utterance}", expected.emotion, "Ross", words)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_table_is_read_or_refused_in_one_line(copies: Path, content: bytes) -> None:
    (copies / "dev_sent_emo.csv").write_bytes(HEADER.encode() + b"\n" + content)
    (copies / "test_sent_emo.csv").write_bytes(content)
    try:
        read(copies)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
