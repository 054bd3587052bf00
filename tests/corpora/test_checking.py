"""What of a corpus cannot be used: found before the work, listed by id, left out or refused by one rule."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.cli.main import main
from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.checking import FRAME_S, check_utterances, leave_out, usable_utterances
from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.recognizer import default_bundle


@pytest.mark.parametrize(
    ("start_s", "end_s", "why"),
    [
        (math.nan, None, "start_s is nan, expected 0 or more"),
        (-0.5, None, "start_s is -0.5, expected 0 or more"),
        (0.0, math.nan, "end_s is nan, expected more than start_s, 0.0"),
        (0.0, math.inf, "end_s is inf, expected more than start_s"),
        (2.0, 1.0, "end_s is 1.0, expected more than start_s, 2.0"),
        (60.0, None, "starts at 60.0 s, .* lasts 3"),
        (0.0, 60.0, "ends at 60.0 s, .* lasts 3"),
        (1.0, 1.006, r"lasts 6.0 ms, expected at least 25.0 ms \("),
    ],
)
def test_an_extent_that_cannot_be_heard(clip: Path, start_s: float, end_s: float | None, why: str) -> None:
    check = check_utterances([Utterance("a", clip, start_s=start_s, end_s=end_s), Utterance("b", clip)])
    assert list(check.unusable) == ["a"]
    assert re.match(why, check.unusable["a"]), check.unusable["a"]
    assert list(check.lengths) == [Utterance("b", clip).recording]


def test_a_file_that_cannot_be_heard(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "short.wav", np.zeros(96, np.float32), 16_000)
    names = ("notes", "empty", "none", "short", "gone")
    utterances = [Utterance(name, tmp_path / f"{name}.wav") for name in names]
    found = check_utterances([*utterances, Utterance("good", clip)]).unusable
    assert set(found) == set(names)
    assert "no such file" in found["gone"]
    assert "lasts 6.0 ms" in found["short"]
    assert all(str(tmp_path / f"{name}.wav") in found[name] for name in names)


def test_a_rounded_end_is_the_files_end(clip: Path) -> None:
    whole_s = soundfile.info(clip).duration
    check = check_utterances([Utterance("a", clip, end_s=whole_s + 0.05)])
    assert not check.unusable
    assert list(check.lengths.values()) == [pytest.approx(whole_s)]


def test_a_few_are_left_out_and_listed_by_id(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    utterances = [Utterance(str(i), clip) for i in range(27)]
    bad = [Utterance(name, clip.with_name("gone.wav")) for name in ("x", "y", "z")]
    with caplog.at_level(logging.WARNING):
        assert usable_utterances([*utterances[:5], *bad, *utterances[5:]]) == utterances
    (record,) = caplog.records
    first, *listed = record.getMessage().splitlines()
    assert first == "corpus: 3 of 30 utterances cannot be used and are left out"
    assert [line.split(":")[0].strip() for line in listed] == ["x", "y", "z"]


def test_more_than_a_tenth_is_refused_in_one_line(clip: Path) -> None:
    bad = {str(number): "no such file" for number in range(4)}
    with pytest.raises(InputError, match=r"4 of 30 .* at most 10% are left out \(0: no such file; 1:") as raised:
        leave_out(bad, 30)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="1 of 30 utterances cannot be used, --strict takes none"):
        leave_out({"a": "no such file"}, 30, strict=True)
    leave_out({}, 30, strict=True)


def test_a_manifest_with_such_times_is_read_and_checked(clip: Path, tmp_path: Path) -> None:
    rows = ["a,nan,", "b,0,inf", "c,-1,", "d,3,2", "e,0,2"]
    (tmp_path / "m.csv").write_text("\n".join(["id,start_s,end_s,audio", *(f"{row},{clip}" for row in rows)]))
    utterances = read_corpus(f"manifest:{tmp_path / 'm.csv'}")
    assert set(check_utterances(utterances).unusable) == {"a", "b", "c", "d"}
    for utterance in utterances[:4]:
        with pytest.raises(InputError, match=f"{clip.name}: (start|end)_s is"):
            load_audio(utterance.audio, utterance.start_s, utterance.end_s)


def test_it_reads_headers_alone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "read", lambda *_, **__: pytest.fail("decoded"))
    many = [Utterance(str(i), clip, start_s=i / 1000) for i in range(2000)]
    assert len(check_utterances(many).lengths) == 2000
    assert not check_utterances([dataclasses.replace(many[0], end_s=FRAME_S)]).unusable


def test_every_command_answers_a_manifest_with_such_times(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`corpus` names them, `score` gives each its row, `evaluate` refuses: two of three."""
    rows = [f"a,nan,,{clip},sad", f"b,0,inf,{clip},sad", f"c,0,2,{clip},sad"]
    (tmp_path / "m.csv").write_text("\n".join(["id,start_s,end_s,audio,emotion", *rows]))
    corpus = f"manifest:{tmp_path / 'm.csv'}"
    assert main(["corpus", corpus, "--json"]) == 0
    durations = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["durations"]
    assert (durations["recordings"], durations["mean_s"]) == (1, 2.0)
    assert durations["unreadable"] == {str(clip): "start_s is nan, expected 0 or more"}
    main(["score", "--corpus", corpus, "--asr", "none", "--engine", "onnxruntime"])
    scored = [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in row for row in scored] == [True, True, False]
    assert main(["evaluate", str(default_bundle()), "--corpus", corpus]) == 2
    assert "2 of 3 utterances cannot be used" in capsys.readouterr().err
