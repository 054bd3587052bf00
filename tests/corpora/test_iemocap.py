from __future__ import annotations

import logging
import shutil
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeser.corpora import Utterance, corpus_identity, iemocap, leave_one_session_out, read_corpus
from edgeser.corpora.iemocap import FULL_RELEASE, parse_evaluation, parse_transcription
from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import InputError

DIALOG = "Ses01F_impro01"


@pytest.fixture
def copy(iemocap: Path, tmp_path: Path) -> Path:
    """A copy of the small release that a test may damage."""
    return Path(shutil.copytree(iemocap, tmp_path / iemocap.name))


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small release for a complete one."""
    counts = {"angry": 10, "happy": 20, "neutral": 10, "sad": 10}
    monkeypatch.setattr(iemocap, "FULL_RELEASE", counts)


def read(path: Path) -> dict[str, Utterance]:
    return {u.id: u for u in read_corpus(f"iemocap:{path}")}


def labels(root: Path, dialog: str = DIALOG) -> Path:
    return root / f"Session{dialog[4]}" / "dialog" / "EmoEvaluation" / f"{dialog}.txt"


def words(root: Path, dialog: str = DIALOG) -> Path:
    return root / f"Session{dialog[4]}" / "dialog" / "transcriptions" / f"{dialog}.txt"


def wav(root: Path, turn: str) -> Path:
    return root / f"Session{turn[4]}" / "sentences" / "wav" / turn.rpartition("_")[0] / f"{turn}.wav"


def change(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    return record.getMessage()


def test_a_full_release_has_the_papers_5531_utterances() -> None:
    assert sum(FULL_RELEASE.values()) == 5531
    assert FULL_RELEASE == {"angry": 1103, "neutral": 1708, "happy": 1636, "sad": 1084}


@pytest.mark.usefixtures("complete")
def test_a_complete_copy_is_read_without_a_word(iemocap: Path, caplog: pytest.LogCaptureFixture) -> None:
    utterances = read_corpus(f"iemocap:{iemocap}")
    assert caplog.records == []
    assert [u.id for u in utterances] == sorted({u.id for u in utterances})
    assert Counter(u.emotion for u in utterances) == {"angry": 10, "happy": 20, "neutral": 10, "sad": 10}
    assert Counter(u.session for u in utterances) == dict.fromkeys("12345", 10)
    assert Counter(u.speaker for u in utterances) == {f"Ses0{n}{gender}": 5 for n in range(1, 6) for gender in "FM"}
    assert utterances[0] == Utterance(
        "Ses01F_impro01_F000",
        iemocap / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        "angry",
        "How dare you!",
        speaker="Ses01F",
        session="1",
        corpus="iemocap",
    )
    assert [load_audio(u.audio).shape for u in utterances[:2]] == [(32000,), (32000,)]
    for fold in leave_one_session_out(utterances):
        assert {u.speaker for u in fold.test}.isdisjoint(u.speaker for u in fold.train)


def test_the_speaker_is_who_speaks_not_who_wears_the_markers(iemocap: Path) -> None:
    utterances = read(iemocap)
    assert utterances["Ses02F_impro01_M000"].speaker == "Ses02M"
    assert utterances["Ses02M_script01_1b_F000"].speaker == "Ses02F"
    assert utterances["Ses05F_impro01_FXX0"].speaker == "Ses05F"


def test_labels_of_no_use_are_left_out_and_excited_is_happy(iemocap: Path) -> None:
    utterances = read(iemocap)
    assert "\tSes01F_impro01_M001\texc\t" in labels(iemocap).read_text()
    assert utterances["Ses01F_impro01_M001"].emotion == "happy"
    assert "\tSes01F_impro01_M002\tfru\t" in labels(iemocap).read_text()
    assert "Ses01F_impro01_M002" not in utterances
    assert wav(iemocap, "Ses01F_impro01_M002").is_file()


def test_the_folder_above_is_accepted(iemocap: Path) -> None:
    assert read(iemocap.parent) == read(iemocap)


@pytest.mark.usefixtures("complete")
def test_windows_line_ends_and_byte_order_marks(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(copy)
    for file in (labels(copy), words(copy)):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(copy) == expected
    assert caplog.records == []


@pytest.mark.parametrize(
    ("line", "transcript"),
    [
        (b"Ses01F_impro01_F000: No time here.", "No time here."),
        (b"Ses01F_impro01_F000 [006.2900-008.2900]: He said: no: never [LAUGHTER].", "He said: no: never [LAUGHTER]."),
        (b"Ses01F_impro01_F000: [LAUGHTER]: really?", "[LAUGHTER]: really?"),
        (b"Ses01F_impro01_F000 [006.2900-008.2900]:   \t", ""),
        ("Ses01F_impro01_F000 [006.2900-008.2900]: À la café.".encode("latin-1"), "À la café."),
        ("Ses01F_impro01_F000 [006.2900-008.2900]: À la café.".encode(), "À la café."),
        # In Windows-1252 an ellipsis and an apostrophe; read as Latin-1 the first would end the line.
        (b"Ses01F_impro01_F000 [006.2900-008.2900]: Well\x85 I\x92m here\x81.", "Well… I\u2019m here\ufffd."),
        (b"F: Not a turn: noise.", None),
        (b"", None),
    ],
)
def test_transcripts_as_real_files_spell_them(copy: Path, line: bytes, transcript: str | None) -> None:
    before = read(copy)
    first = words(copy).read_bytes().split(b"\n")[0]
    change(words(copy), first + b"\n", line + b"\n")
    after = read(copy)
    assert after.pop("Ses01F_impro01_F000").transcript == transcript
    assert before.pop("Ses01F_impro01_F000").transcript == "How dare you!"
    assert after == before


@pytest.mark.usefixtures("complete")
def test_what_stands_twice_appears_once(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(copy)
    for file in (labels(copy), words(copy)):
        file.write_bytes(file.read_bytes() * 2)
        shutil.copy(file, file.with_name(f"{file.stem} (1).txt"))
        shutil.copy(file, file.with_name(f"{file.stem} copy.txt"))
    shutil.copy(labels(copy), labels(copy, "Ses02F_copied"))
    assert read(copy) == expected
    assert caplog.records == []


def test_of_two_transcripts_the_first_counts(copy: Path) -> None:
    with words(copy).open("a") as file:
        file.write("Ses01F_impro01_F000 [006.2900-008.2900]: Another.\n")
    assert read(copy)["Ses01F_impro01_F000"].transcript == "How dare you!"


@pytest.mark.usefixtures("complete")
def test_a_turn_with_two_labels_keeps_the_first_and_is_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = b"[6.2900 - 8.2900]\tSes01F_impro01_F000\tang\t[2.5000, 3.0000, 2.0000]\n"
    change(labels(copy), line, line + line.replace(b"ang", b"sad"))
    assert read(copy)["Ses01F_impro01_F000"].emotion == "angry"
    assert "1 turn (Ses01F_impro01_F000) with two labels, the first taken" in warning(caplog)
    assert "missing" not in warning(caplog)


def test_a_small_copy_says_how_far_it_is_from_the_release(iemocap: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(iemocap)) == 50
    assert warning(caplog) == (
        f"{iemocap}: 50 utterances, the full IEMOCAP release has 5,531 "
        "(angry 10 of 1,103, happy 20 of 1,636, neutral 10 of 1,708, sad 10 of 1,084); "
        "no file is missing, so the labels are other ones than the release's"
    )


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("parts", ["", "dialog/EmoEvaluation"])
def test_missing_sessions_are_named(copy: Path, caplog: pytest.LogCaptureFixture, parts: str) -> None:
    """A session is missing as a whole, or has lost its labels."""
    for session in ("Session2", "Session4"):
        shutil.rmtree(copy / session / parts)
    utterances = read(copy)
    assert {u.session for u in utterances.values()} == {"1", "3", "5"}
    assert "30 utterances, the full IEMOCAP release has 50 (angry 6 of 10" in warning(caplog)
    assert "missing: 2 sessions (2, 4)" in warning(caplog)


@pytest.mark.usefixtures("complete")
def test_a_missing_evaluation_is_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels(copy).unlink()
    assert len(read(copy)) == 45
    assert warning(caplog).endswith("; missing: 1 evaluation file (Ses01F_impro01)")


@pytest.mark.usefixtures("complete")
def test_a_missing_transcription_leaves_the_words_unknown(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    words(copy).unlink()
    words(copy, "Ses03M_script01_1b").write_bytes(b"")
    utterances = read(copy)
    assert len(utterances) == 50
    silent = {u.id.rpartition("_")[0] for u in utterances.values() if u.transcript is None}
    assert silent == {"Ses01F_impro01", "Ses03M_script01_1b"}
    assert warning(caplog).endswith("; missing: 2 transcription files (Ses01F_impro01, Ses03M_script01_1b)")


@pytest.mark.usefixtures("complete")
def test_turns_without_audio_are_left_out_counted_and_the_first_named(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in ("Ses05M_script01_1b_M000", "Ses05M_script01_1b_F000", "Ses01F_impro01_F000"):
        wav(copy, turn).unlink()
    shutil.rmtree(wav(copy, "Ses04F_impro01_F000").parent)
    wav(copy, "Ses01F_impro01_M002").unlink()  # frustrated, so that nobody misses it
    utterances = read(copy)
    assert len(utterances) == 42
    assert "Ses01F_impro01_F000" not in utterances
    missing = "8 wav files (Ses01F_impro01_F000, Ses04F_impro01_F000, Ses04F_impro01_F001, ...)"
    assert warning(caplog).endswith(f"; missing: {missing}")
    assert "42 utterances, the full IEMOCAP release has 50 (angry 7 of 10, " in warning(caplog)


@pytest.mark.usefixtures("complete")
def test_a_full_count_does_not_hide_a_missing_transcription(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    words(copy).unlink()
    assert len(read(copy)) == 50
    assert "50 utterances, the full IEMOCAP release has 50 (angry 10 of 10" in warning(caplog)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such folder, expected IEMOCAP's own layout with Session1 to"):
        read(tmp_path / "gone")


def test_an_archive_is_no_folder(tmp_path: Path) -> None:
    archive = tmp_path / "IEMOCAP_full_release.tar.gz"
    archive.write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=r"tar\.gz: is a file, expected .*: give the unpacked IEMOCAP_full_release"):
        read(archive)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "Session9").mkdir()
    (tmp_path / "._Session1").write_bytes(b"")
    with pytest.raises(InputError, match="holds no Session folder, expected IEMOCAP's own layout"):
        read(tmp_path)


@pytest.mark.parametrize("files", [0, 10])
def test_no_labels(copy: Path, files: int) -> None:
    """Resource forks and annotators' own files are no evaluations."""
    for session in range(1, 6):
        for file in (copy / f"Session{session}" / "dialog" / "EmoEvaluation").glob("Ses*.txt"):
            if files:
                file.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n")
            else:
                file.unlink()
    with pytest.raises(InputError, match=f"no label in {files} files of Session.*: unpack the whole release"):
        read(copy)


def test_no_audio_at_all(copy: Path) -> None:
    for session in range(1, 6):
        shutil.rmtree(copy / f"Session{session}" / "sentences")
    with pytest.raises(InputError, match="holds no utterances"):
        read(copy)


def test_a_home_folder_is_found(iemocap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(iemocap.parent))
    spec = f"iemocap:~/{iemocap.name}"
    assert read_corpus(spec) == read_corpus(f"iemocap:{iemocap}")
    assert corpus_identity(spec) == {"reader": "iemocap", "name": "IEMOCAP_full_release"}
    with pytest.raises(InputError, match="got '~nobody-of-that-name/x', no such user or home: give the whole path"):
        read_corpus("iemocap:~nobody-of-that-name/x")


def test_a_file_is_named_by_its_content(corpus: str) -> None:
    identity = corpus_identity(corpus)
    assert identity.keys() == {"reader", "name", "sha256"}
    assert len(identity["sha256"]) == 64


@pytest.mark.parametrize("spec", ["iemocap", "iemocap:", "IEMOCAP:x", "cremad:x", ""])
def test_an_unknown_reader_lists_all(spec: str) -> None:
    with pytest.raises(InputError, match=f"got '{spec}', expected manifest:PATH, iemocap:PATH, .* or emodb:PATH"):
        read_corpus(spec)


times = st.floats(0, 999, allow_nan=False).map(lambda value: round(value, 4))
turn_names = st.builds(
    "Ses0{}{}_{}_{}{}".format,
    st.sampled_from("12345"),
    st.sampled_from("FM"),
    st.sampled_from(["impro01", "impro05a", "script01_1", "script01_1b", "script03_2"]),
    st.sampled_from("FM"),
    st.one_of(st.integers(0, 99).map("{:03d}".format), st.sampled_from(["XX0", "XX1"])),
)
spoken = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).map(str.strip)


@given(st.text())
@example("[6.2901 - 8.2357]\tSes01F_impro01_F000")
@example("Ses01F_impro01_F000")
@example("[" * 2000)
@example("Ses01F_" + "_F" * 2000)
def test_no_line_is_too_strange(line: str) -> None:
    for parsed in (parse_evaluation(line), parse_transcription(line)):
        assert parsed is None or parsed[0] in line


@given(times, times, turn_names, st.text(string.ascii_lowercase, min_size=3, max_size=3))
def test_evaluations_come_back_as_written(start: float, end: float, turn: str, label: str) -> None:
    line = f"[{start:.4f} - {end:.4f}]\t{turn}\t{label}\t[2.5000, 3.0000, 2.0000]"
    assert parse_evaluation(line) == (turn, label)
    assert parse_evaluation(f"{line}\r\n") == (turn, label)
    assert parse_transcription(line) is None


@given(times, times, turn_names, spoken)
def test_transcriptions_come_back_as_written(start: float, end: float, turn: str, text: str) -> None:
    line = f"{turn} [{start:08.4f}-{end:08.4f}]: {text}"
    assert parse_transcription(line) == (turn, text)
    assert parse_transcription(f"{turn}: {text}") == (turn, text)
    assert parse_evaluation(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]",
        "C-E2:\tNeutral;\t()",
        "A-F1:\tval 3; act 2; dom 2;\t()",
        "[6.2901 - 8.2357]\tSes06F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        "[6.2901 - 8.2357]\tSes01F_impro01\tneu\t[2.5000, 2.5000, 2.5000]",
        "M: [BREATHING]",
        "F: Okay.",
    ],
)
def test_other_lines_are_neither(line: str) -> None:
    assert parse_evaluation(line) is None
    assert parse_transcription(line) is None
