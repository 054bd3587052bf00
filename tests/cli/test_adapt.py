"""`edgeser adapt` on real clips with the default bundle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.cli.adapt import parse_prior
from edgeser.cli.main import main
from edgeser.runtime.adaptation import ADAPTATION
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import CARD, GOLDEN, Bundle
from edgeser.runtime.engines import OnnxRuntimeEngine
from edgeser.runtime.errors import InputError
from edgeser.runtime.golden import verify_engine
from edgeser.runtime.recognizer import Runtime, default_bundle

OwnVoice = Callable[[Path, Mapping[str, str]], str]
TURNED = {"angry": "happy", "happy": "neutral", "neutral": "sad", "sad": "angry"}
"""Someone whose words for emotions are all others: the shipped bundle is always wrong."""
FOUR = ("angry", "happy", "neutral", "sad")


def adapt(*arguments: object, bundle: Path | None = None) -> int:
    given = [bundle or default_bundle(), "--engine", "onnxruntime", *arguments]
    return main(["adapt", *map(str, given)])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def turned(own_voice: OwnVoice, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle that was adapted to the turned emotions, and the clips: read it, do not change it."""
    place = tmp_path_factory.mktemp("turned")
    corpus = own_voice(place, TURNED)
    assert adapt("--corpus", corpus, "-o", place / "mine.edgeser") == 0
    return place / "mine.edgeser", corpus


def rows(corpus: str) -> list[tuple[Path, str]]:
    lines = Path(corpus.partition(":")[2]).read_text(encoding="utf-8").splitlines()[1:]
    return [(Path(audio), emotion) for _, audio, emotion in (line.split(",") for line in lines)]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_engine_answers_as_the_user_meant(engine: str, turned: tuple[Path, str]) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    with Runtime.load(turned[0], engine=engine, asr="none") as runtime:
        right = [runtime.recognize(audio).label == emotion for audio, emotion in rows(turned[1])]
    with Runtime.load(engine=engine, asr="none") as shipped:
        before = [shipped.recognize(audio).label == emotion for audio, emotion in rows(turned[1])]
    assert np.mean(right) >= 0.9
    assert np.mean(before) <= 0.4


def test_a_stream_a_batch_and_one_clip_answer_alike(turned: tuple[Path, str], clip: Path) -> None:
    from edgeser.runtime.sources import FileSource

    with Runtime.load(turned[0], engine="onnxruntime", asr="none") as runtime:
        (event,) = runtime.listen(FileSource(clip))
        samples = soundfile.read(clip, dtype="float32")[0]
        cut = samples[round(event.start_s * SAMPLE_RATE) : round(event.end_s * SAMPLE_RATE)]
        alone, (batched, _) = runtime.recognize(cut, SAMPLE_RATE), runtime.recognize_batch([cut, samples], ["", ""])
    for label in FOUR:
        assert event.result.probabilities[label] == pytest.approx(alone.probabilities[label], abs=1e-5)
        assert batched.probabilities[label] == pytest.approx(alone.probabilities[label], abs=1e-5)


def test_the_graph_and_its_proof_stay_as_they_were(turned: tuple[Path, str]) -> None:
    shipped, adapted = Bundle.open(default_bundle()), Bundle.open(turned[0])
    changed = {ADAPTATION, CARD}
    assert {n: e for n, e in adapted.manifest.files.items() if n not in changed} == {
        n: e for n, e in shipped.manifest.files.items() if n not in changed
    }
    assert GOLDEN in adapted.manifest.files
    with OnnxRuntimeEngine(adapted.graph()) as engine:
        assert verify_engine(engine, adapted) < 1e-3


def test_what_it_says_of_itself(turned: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    shipped, adapted = Bundle.open(default_bundle()), Bundle.open(turned[0])
    entry = adapted.manifest.adaptation
    assert entry is not None
    assert (entry.source.sha256, entry.source.name) == (shipped.sha256, shipped.manifest.name)
    assert dict(entry.clips) == dict.fromkeys(FOUR, 5)
    assert entry.ua["adapted"] > 0.8
    assert entry.ua["shipped"] < 0.4
    assert adapted.manifest.name == f"{shipped.manifest.name}-adapted"
    assert main(["inspect", str(turned[0])]) == 0
    out = capsys.readouterr().out
    assert f"  adapted    to 5 angry, 5 happy, 5 neutral, 5 sad; from {shipped.manifest.name}" in out
    assert "as shipped: " in out
    assert "## Adapted to a voice" in adapted.read(CARD).decode()


def test_nothing_of_the_user_but_counts_is_in_it(turned: tuple[Path, str]) -> None:
    content = turned[0].read_bytes()
    for audio, _ in rows(turned[1]):
        assert audio.stem.encode() not in content
    assert b"mine.csv" not in content
    assert str(turned[0].parent).encode() not in content


def test_the_same_clips_give_the_same_bundle(turned: tuple[Path, str], tmp_path: Path) -> None:
    assert adapt("--corpus", turned[1], "-o", tmp_path / "again.edgeser") == 0
    assert (tmp_path / "again.edgeser").read_bytes() == turned[0].read_bytes()


def test_an_adapted_bundle_begins_again_with_the_one_it_came_from(
    turned: tuple[Path, str], tmp_path: Path, own_voice: OwnVoice
) -> None:
    assert adapt("--corpus", turned[1], "-o", tmp_path / "again.edgeser", bundle=turned[0]) == 0
    assert (tmp_path / "again.edgeser").read_bytes() == turned[0].read_bytes()


def test_it_refuses_where_it_would_not_be_better(
    own_voice: OwnVoice, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    # What the bundle answers is called right: nothing is better than that.
    corpus = own_voice(tmp_path, {})
    with Runtime.load(engine="onnxruntime", asr="none") as runtime:
        answers = [runtime.recognize(audio).label for audio, _ in rows(corpus)]
    labels = sorted(label for label in set(answers) if answers.count(label) > 1)
    named = [f"{audio.stem},{audio},{answer}" for (audio, _), answer in zip(rows(corpus), answers, strict=True)]
    manifest = tmp_path / "mine.csv"
    manifest.write_text("\n".join(["id,audio,emotion", *named, ""]), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    command = ("--corpus", f"manifest:{manifest}", "--labels", ",".join(labels), "--json")
    status = adapt(*command, "-o", tmp_path / "mine.edgeser")
    found = json.loads(capsys.readouterr().out)
    assert (status, found["better"], found["out"]) == (1, False, None)
    assert found["adapted"]["ua"] <= found["shipped"]["ua"]
    assert "not adapted: of " in caplog.text
    assert sorted(tmp_path.iterdir()) == before


def test_fewer_emotions(turned: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two.edgeser"
    assert adapt("--corpus", turned[1], "--labels", "sad,happy", "-o", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["clips"] == {"happy": 5, "sad": 5}
    with Runtime.load(out, engine="onnxruntime", asr="none") as runtime:
        assert runtime.labels == ("happy", "sad")
        for audio, emotion in rows(turned[1]):
            result = runtime.recognize(audio)
            assert set(result.probabilities) == {"happy", "sad"}
            assert emotion not in runtime.labels or result.label == emotion
        silence = runtime.recognize(np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
        assert silence.probabilities == {"happy": 0.5, "sad": 0.5}
    assert main(["score", str(rows(turned[1])[0][0]), "--bundle", str(out), "--asr", "none"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [name for name in row if name.startswith("p_")] == ["p_happy", "p_sad"]
    # A bundle of two emotions can be adapted to all of them again.
    assert adapt("--corpus", turned[1], "-o", tmp_path / "four.edgeser", bundle=out) == 0
    assert (tmp_path / "four.edgeser").read_bytes() == turned[0].read_bytes()


def test_a_prior_moves_the_odds_by_what_it_says(turned: tuple[Path, str], tmp_path: Path, clip: Path) -> None:
    assert adapt("--corpus", turned[1], "--prior", "sad=0.7", "-o", tmp_path / "sad.edgeser") == 0
    answers = []
    for bundle in (turned[0], tmp_path / "sad.edgeser"):
        with Runtime.load(bundle, engine="onnxruntime", asr="none") as runtime:
            answers.append(runtime.recognize(clip).probabilities)
    flat, moved = answers
    for label in ("angry", "happy", "neutral"):
        odds = (moved["sad"] / moved[label]) / (flat["sad"] / flat[label])
        assert odds == pytest.approx(7.0, rel=1e-3)
    manifest = Bundle.open(tmp_path / "sad.edgeser").manifest
    assert manifest.adaptation is not None
    assert manifest.adaptation.prior == pytest.approx({"angry": 0.1, "happy": 0.1, "neutral": 0.1, "sad": 0.7})


def test_priors() -> None:
    assert parse_prior("neutral=0.7,sad=0.1", FOUR) == pytest.approx(
        {"angry": 0.1, "happy": 0.1, "neutral": 0.7, "sad": 0.1}
    )
    assert parse_prior("sad=0.25,angry=0.75", ("angry", "sad")) == {"angry": 0.75, "sad": 0.25}


@pytest.mark.parametrize(
    "text",
    [
        *("", "neutral", "neutral=", "neutral=x", "neutral=nan", "neutral=0", "neutral=-1", "neutral=1", "fear=0.5"),
        *("neutral=0.5,neutral=0.1", "neutral=0.7,sad=0.4", "angry=.2,happy=.2,neutral=.2,sad=.2", "=0.5"),
    ],
)
def test_what_is_no_prior(text: str) -> None:
    with pytest.raises(InputError, match=r"--prior: got .*for example angry=0\.7"):
        parse_prior(text, FOUR)


def lines_of(corpus: str, tmp_path: Path, *lines: str) -> str:
    """Return a corpus with other lines, `{0}` to `{19}` for the clips' files."""
    files = [str(audio) for audio, _ in rows(corpus)]
    manifest = tmp_path / "other.csv"
    text = "\n".join(["id,audio,emotion,start_s,end_s,transcript", *lines, ""]).format(*files)
    manifest.write_text(text, encoding="utf-8")
    return f"manifest:{manifest}"


ENOUGH = [f"{i},{{{i}}},{FOUR[i % 4]},,," for i in range(8)]


def test_the_mean_of_a_model_that_was_not_trained_for_it(
    turned: tuple[Path, str], uncentered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.edgeser"
    assert adapt("--corpus", turned[1], "-o", mine, "--normalize", "run", bundle=uncentered) == 2
    assert "has no mean_prior" in last_line(capsys)
    assert not mine.exists()


@pytest.mark.parametrize(
    ("lines", "arguments", "message"),
    [
        (ENOUGH[:7], (), "got 1 of sad, expected at least 2 recordings of each emotion and 5 in all"),
        (ENOUGH[:4], ("--labels", "angry,happy"), "got 1 of angry, 1 of happy, expected"),
        ([ENOUGH[i] for i in (0, 1, 4, 5)], ("--labels", "angry,happy"), "got 4 in all, expected"),
        ([*ENOUGH, "x,{8},fear,,,"], (), "got clips 1 of fear, the bundle knows angry, happy, neutral, sad"),
        ([*ENOUGH, "x,{8},,,,"], (), "got clips 1 of no emotion"),
        ([*ENOUGH, "x,{8},cross,,,"], (), "cross"),
        ([*ENOUGH, "x,{0},angry,,,"], (), "0 and x are the same clip"),
        ([*ENOUGH, "x,{0},happy,,,"], (), "0 and x have the same sound, one is angry, the other happy"),
        ([*ENOUGH[:7], "x,{3},sad,0,2,", "y,{3},sad,1,,"], (), "got 1 of sad"),  # overlapping: one recording
        ([*ENOUGH[:7], "x,{3},sad,,,yes", "y,{3},sad,,,no"], (), "got 1 of sad"),  # one recording with two lines
        (ENOUGH, ("--labels", "angry"), "--labels: got angry, expected 2 or more of angry"),
        (ENOUGH, ("--labels", "angry,fear"), "--labels: got angry, fear, expected 2 or more of angry"),
        (ENOUGH, ("--prior", "neutral=2"), "--prior: got 'neutral=2'"),
        ([*ENOUGH, "x,nowhere.wav,angry,,,"], (), "1 of 9 utterances cannot be used, at most 10% are left out"),
    ],
)
def test_what_is_refused(
    lines: list[str],
    arguments: tuple[str, ...],
    message: str,
    turned: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = lines_of(turned[1], tmp_path, *lines)
    assert adapt("--corpus", corpus, "-o", tmp_path / "mine.edgeser", *arguments) == 2
    assert message in last_line(capsys)
    assert not (tmp_path / "mine.edgeser").exists()


def test_no_speech_is_listed_and_left_out(
    turned: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(2 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    lines = [f"{i},{{{i}}},{emotion},,," for i, (_, emotion) in enumerate(rows(turned[1]))]
    corpus = lines_of(turned[1], tmp_path, *lines, f"quiet,{tmp_path / 'silence.wav'},sad,,,")
    assert adapt("--corpus", corpus, "-o", tmp_path / "mine.edgeser") == 0
    assert "1 of 21 utterances cannot be used and are left out" in caplog.text
    assert "quiet: no speech was found" in caplog.text
    assert adapt("--corpus", corpus, "-o", tmp_path / "strict.edgeser", "--strict") == 2
    assert "quiet: no speech was found" in last_line(capsys)


def test_the_output_is_no_input(turned: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.edgeser"
    shutil.copyfile(turned[0], mine)
    assert adapt("--corpus", turned[1], "-o", mine, bundle=mine) == 2
    assert "is the bundle to adapt: name another" in last_line(capsys)
    assert mine.read_bytes() == turned[0].read_bytes()


def test_a_full_disk(turned: tuple[Path, str], disk: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    place = disk(1024)
    assert adapt("--corpus", turned[1], "-o", place / "mine.edgeser") == 1
    assert "make room" in last_line(capsys)
    assert list(place.iterdir()) == []


def test_ctrl_c_leaves_nothing(turned: tuple[Path, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeser.cli.main", "adapt", str(default_bundle()), "--corpus", turned[1]]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path / "mine.edgeser"), "--engine", "onnxruntime"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)  # it is listening by then, or still starting
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_calibrate_refuses_an_adapted_bundle(
    turned: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    command = ["calibrate", turned[0], "--corpus", turned[1], "-o", tmp_path / "int8.edgeser"]
    assert main([str(word) for word in command]) == 2
    assert "is adapted to one user: calibrate the bundle that it came from" in last_line(capsys)
