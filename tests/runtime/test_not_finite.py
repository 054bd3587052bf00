"""Engines that compute NaN or infinity: no emotion is read off that, anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeser.cli.main import main
from edgeser.runtime.audio import load_audio
from edgeser.runtime.bundle import Bundle, write_bundle
from edgeser.runtime.engines import OnnxRuntimeEngine
from edgeser.runtime.errors import EngineError, ParityError
from edgeser.runtime.recognizer import Runtime, default_bundle

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
OUTPUTS = ("logits", "audio_importance", "text_importance")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Path]:
    """Make a bundle whose model adds a number to one of its outputs."""

    def make(output: str, number: float) -> Path:
        path = tmp_path_factory.mktemp("damaged") / "damaged.edgeser"
        bundle = Bundle.open(default_bundle())
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        model = onnx.load_from_string(bundle.graph())
        for node in model.graph.node:
            node.output[:] = ["before" if name == output else name for name in node.output]
        number_tensor = onnx.numpy_helper.from_array(np.array(number, np.float32), "number")
        model.graph.initializer.append(number_tensor)
        model.graph.node.append(onnx.helper.make_node("Add", ["before", "number"], [output]))
        files[bundle.manifest.graphs["portable"]] = model.SerializeToString()
        write_bundle(path, bundle.manifest, files)
        return path

    return make


def test_the_default_model_has_these_outputs() -> None:
    with OnnxRuntimeEngine(Bundle.open(default_bundle()).graph()) as engine:
        assert {spec.name for spec in engine.outputs} == set(OUTPUTS)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_no_answer(damaged: Callable[[str, float], Path], clip: Path, output: str, number: float) -> None:
    """NaN became "angry", the first label: `argmax` takes NaN for the largest."""
    path = damaged(output, number)
    with pytest.raises((EngineError, ParityError)):
        Runtime.load(path, engine="onnxruntime", asr="none")
    with Runtime.load(path, engine="onnxruntime", asr="none", self_test=False) as runtime:
        for call in (
            lambda: runtime.recognize(clip),
            lambda: runtime.recognize(clip, transcript="how dare you"),
            lambda: runtime.recognize_batch([load_audio(clip)] * 2, [None, "a"]),
            lambda: runtime.answer(load_audio(clip), ()),
        ):
            with pytest.raises(EngineError, match=f"^onnxruntime: {output} holds NaN or infinity: "):
                call()


def test_rows_stay_json(
    damaged: Callable[[str, float], Path], clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", *map(str, clips), "--bundle", str(damaged("logits", np.nan)), "--no-self-test", "--asr", "none"]
    assert main([*command, "-o", str(tmp_path / "out.jsonl")]) != 0
    assert main(command) != 0
    file = tmp_path / "out.jsonl"
    texts = [capsys.readouterr().out, file.read_text(encoding="utf-8") if file.exists() else ""]
    for line in "".join(texts).splitlines():
        row = json.loads(line, parse_constant=pytest.fail)
        assert "logits holds NaN or infinity" in row["error"]
        assert "label" not in row


def test_a_stream_counts_it_as_failed(damaged: Callable[[str, float], Path], clip: Path) -> None:
    with (
        Runtime.load(damaged("logits", np.nan), engine="onnxruntime", asr="none", self_test=False) as runtime,
        runtime.open_stream() as stream,
    ):
        stream.push(np.concatenate([load_audio(clip), np.zeros(16_000, np.float32)]), wait=True)
        assert stream.flush(60)
        assert stream.next_event(0) is None
        assert stream.stats.failed == 1
