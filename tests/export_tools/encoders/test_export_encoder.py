"""`edgeser export-encoder` as a user meets it: what is refused, what is written, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgeser.cli.main import main
from edgeser.export_tools.encoders import export
from edgeser.export_tools.encoders.export import SUPPORTED, EncoderOptions, export_encoder
from edgeser.runtime.errors import InputError, MissingDependencyError, ParityError
from edgeser.runtime.frontends import SpeechEncoder, read_frontend

KINDS = ("wav2vec2", "hubert", "wavlm", "whisper", "bert", "roberta", "CTranslate2 Whisper", "wav2vec 1.0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, randomise: Callable[[nn.Module], None]) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("models") / "tiny-wav2vec2"
    config = Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        conv_dim=(6, 6),
        conv_kernel=(10, 2),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=8,
    )
    model = Wav2Vec2Model(config)
    randomise(model)
    model.save_pretrained(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: object) -> str:
    """Run the command, which must fail as bad usage with one line and write nothing; return the line."""
    assert main(["export-encoder", *map(str, arguments), "-o", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("edgeser: ")
    assert not out.exists()
    return line


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "got no config.json"),
        ({"config.json": '{"model_type": "gpt2"}'}, "got model_type 'gpt2'"),
        ({"config.json": "{}"}, "got model_type None"),
    ],
    ids=str,
)
def test_a_folder_that_is_not_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    line = refused(capsys, tmp_path / "out", folder)
    assert line == f"edgeser: {folder}: {message}, expected {SUPPORTED}"
    assert all(kind in line for kind in KINDS)


def test_other_sources_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for source in (tmp_path / "missing", tmp_path / "missing.pt", "whisper-huge"):
        assert f"{source}: no such folder, expected {SUPPORTED}" in refused(capsys, out, source)
    folder = tmp_path / "model"
    folder.mkdir()
    for content in ("", "[1]", "\xff"):
        (folder / "config.json").write_bytes(content.encode("latin-1"))
        assert "not readable as JSON" in refused(capsys, out, folder)
    (folder / "config.json").write_text('{"model_type": "wavlm"}')
    assert "has no weights, expected model.safetensors or pytorch_model.bin" in refused(capsys, out, folder)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    assert f"{folder}: not readable by transformers" in refused(capsys, out, folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    (folder / "model.bin").write_bytes(b"no model")
    assert "not readable as a CTranslate2 model" in refused(capsys, out, folder)
    (tmp_path / "some.pt").write_bytes(b"no checkpoint")
    assert "not readable as a fairseq checkpoint" in refused(capsys, out, tmp_path / "some.pt")


def test_options_that_do_not_fit(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "--layer: got '2', expected 0 to 1, last" in refused(capsys, out, tiny, "--layer", "2")
    assert "has no layer_weights" in refused(capsys, out, tiny, "--layer", "learned")
    assert "which hears speech: only lines of text have one row" in refused(capsys, out, tiny, "--pool", "mean")
    with pytest.raises(InputError, match="--pool: got 'max', expected start or mean"):
        EncoderOptions(str(tiny), out, pool="max")
    for options in (("--length", "0"), ("--length", "x"), ("--weights", "int4"), ("--pool", "max")):
        with pytest.raises(SystemExit) as caught:
            main(["export-encoder", str(tiny), "-o", str(out), *options])
        assert caught.value.code == 2
    assert not out.exists()
    with pytest.raises(InputError, match="--length: got -3, expected at least 1 row"):
        export_encoder(EncoderOptions(str(tiny), out, length=-3))


def constant(encoder: Any, inputs: Any, any_rows: bool = False, error: float = 0.0) -> Any:
    """Stand in for the lowering: a graph that always gives the example's rows, one of them off by `error` deviations.

    The real one is proved encoder by encoder in the other files.
    """
    from onnx import TensorProto, helper, numpy_helper

    with torch.inference_mode():
        rows = encoder(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    rows[0, 0, 0] += error * rows.std()
    shape = inputs["samples"].shape
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["constant"], ["rows"])],
            "g",
            [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ("N", shape[1]))],
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, rows.shape)],
            [numpy_helper.from_array(rows, "constant")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


@pytest.fixture(scope="module")
def written(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "a" / "b"
    options = ["--layer", "0.5,1.5", "--length", "12", "--weights", "half", "--licence", "ours"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "lower_encoder", constant)
        assert main(["export-encoder", str(tiny), "-o", str(out), *options]) == 0
    return out


def test_what_is_written(written: Path) -> None:
    assert {file.name for file in written.iterdir()} == {"encoder.onnx", "frontend.json", "statistics.safetensors"}
    assert json.loads((written / "frontend.json").read_text()) == {
        "kind": "onnx-encoder",
        "length": 12,
        "name": "tiny-wav2vec2",
        "architecture": "wav2vec2",
        "layer": "0.2500 x 0 + 0.7500 x 1",
        "weights": "half",
        "licence": "ours",
        "hop_s": 10 / 16_000,
        "window_s": 15 / 16_000,
        "normalisation": "zero-mean-unit-variance",
        "input": "speech",
    }
    frontend = read_frontend(written)
    assert isinstance(frontend, SpeechEncoder)
    assert (frontend.length, frontend.dim) == (12, 8)


def test_a_graph_that_computes_something_else_is_not_written(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "lower_encoder", partial(constant, error=0.01))
    out = tmp_path / "out"
    with pytest.raises(ParityError, match=r"rows differ from PyTorch's by 1\.0e-02 deviations, limit 1e-03"):
        export_encoder(EncoderOptions(str(tiny), out, length=12))
    assert main(["export-encoder", str(tiny), "-o", str(out), "--length", "12"]) == 1
    assert "rows differ from PyTorch's" in capsys.readouterr().err
    assert not out.exists()


def test_a_packaged_encoder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(export.PACKAGED, "absent", export.PackagedEncoder(("no-such-package",), "", ""))
    with pytest.raises(MissingDependencyError, match=r"no-such-package is not installed.*edgeser\[export\]"):
        export_encoder(EncoderOptions("absent", tmp_path / "out"))


@pytest.mark.parametrize("missing", [1, 2])
def test_a_packaged_encoder_that_lacks_a_part(
    missing: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(f"lacking-{missing}-part-{number}" for number in (1, 2))
    for number, name in enumerate(names, 1):
        data = tmp_path / name.replace("-", "_") / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        if number != missing:
            (data / f"model.bin.part{number}").write_bytes(b"half")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(export.PACKAGED, "halved", export.PackagedEncoder(names, "data", ""))
    line = refused(capsys, tmp_path / "out", "halved")
    lacking = names[missing - 1]
    assert f"{lacking}: has no {tmp_path}" in line
    assert f"model.bin.part{missing}, expected" in line
    assert line.endswith(f"pip install --force-reinstall --no-deps '{lacking}'")


def test_the_place_to_write_to_is_a_file(written: Path, tmp_path: Path) -> None:
    from edgeser.runtime.frontends import write_frontend

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file, expected a folder to write into"):
        write_frontend(tmp_path / "file", read_frontend(written))
    with pytest.raises(InputError, match="file is a file, expected a folder to keep the frontend in"):
        export_encoder(EncoderOptions("gone", tmp_path / "file"))  # before it looks for the model
