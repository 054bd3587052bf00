"""Exporting: both lowerings, proved on real utterances, packed, and run by the Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import graph_inputs, load_utterance
from edgeser.export_tools.export import ExportOptions, export, golden_encoders
from edgeser.export_tools.key_sparse import DOMAIN, NAME, key_sparse_function
from edgeser.export_tools.lowering import lower
from edgeser.export_tools.parity import ParityReport, compare, reference
from edgeser.models import EmotionModel, InputSpec, build_model
from edgeser.nn.attention import key_sparse_attention
from edgeser.runtime import golden
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError, ParityError
from edgeser.runtime.frontends import LogMel, SpeechEncoder, TextEncoder
from edgeser.runtime.recognizer import default_bundle
from edgeser.training.trained import TrainedModel

Fresh = Callable[..., TrainedModel]
Exported = Callable[..., tuple[Bundle, list[ParityReport]]]


def test_what_an_export_leaves_behind(exported: Exported) -> None:
    """That every family exports, agrees and runs is in `tests/models/test_families.py`."""
    bundle, reports = exported()
    assert bundle.manifest.provenance["parity"] == [dataclasses.asdict(report) for report in reports]
    vectors = golden.GoldenVectors.from_bundle(bundle)
    assert (vectors.logits.shape, vectors.reference, vectors.encoders) == ((4, 4), None, {})  # no encoder among these
    with open_engine(bundle.graph(), threads=2) as engine:
        assert golden.verify_engine(engine, bundle) <= 1e-4


def test_a_bundle_may_be_a_folder(fresh: Fresh, tmp_path: Path) -> None:
    trained = fresh("compact", ("text",), sparse=False, layers=(0, 1, 1))
    bundle, _ = export(trained, ExportOptions(tmp_path / "plain", "plain", utterances=32))
    assert (tmp_path / "plain" / "manifest.json").is_file()
    assert set(bundle.manifest.graphs) == {"portable"}


def test_lowerings_keep_the_contract(exported: Exported) -> None:
    bundle, _ = exported()
    portable, plugin = (onnx.load_from_string(bundle.graph(name)) for name in ("portable", "plugin"))
    for graph in (portable, plugin):
        shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input}
        batch = shapes["audio"][0]
        assert isinstance(batch, str)
        assert shapes == {
            "audio": [batch, 460, 80],
            "audio_length": [batch],
            "text": [batch, 20, 50],
            "text_length": [batch],
        }
        assert [v.name for v in graph.graph.output] == ["logits", "audio_importance", "text_importance"]
        assert graph.ir_version == 10
        assert {o.domain: o.version for o in graph.opset_import}[""] == 18
    assert {node.domain for node in portable.graph.node} == {""}
    opaque = [node for node in plugin.graph.node if node.domain == DOMAIN]
    # One self attention of each CCAB and of deep fusion, and one cross attention, for either modality.
    assert [node.op_type for node in opaque] == [NAME] * 6
    assert {a.name: onnx.helper.get_attribute_value(a) for a in opaque[0].attribute}.keys() == {"keep", "scale"}


def test_the_function_body_means_what_pytorch_computes() -> None:
    body = key_sparse_function()
    node = onnx.helper.make_node(
        NAME, ["q", "k", "v", "n"], ["context", "importance"], domain=DOMAIN, keep=4, scale=0.37
    )
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, 2, 9, 5]) for name in "qkv"]
    values.append(onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT32, [3]))
    outputs = [
        onnx.helper.make_tensor_value_info("context", onnx.TensorProto.FLOAT, [3, 2, 9, 5]),
        onnx.helper.make_tensor_value_info("importance", onnx.TensorProto.FLOAT, [3, 2, 9]),
    ]
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, 1)]
    graph = onnx.helper.make_graph([node], "g", values, outputs)
    model = onnx.helper.make_model(graph, functions=[body], opset_imports=opsets, ir_version=10)
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(3, 2, 9, 5)).astype(np.float32) for name in "qkv"}
    feeds["k"][0] = 1.0  # ties everywhere
    feeds["n"] = np.array([9, 0, 3], dtype=np.int32)
    with open_engine(model.SerializeToString()) as engine:
        actual = engine.run(feeds)
    tensors = [torch.from_numpy(feeds[name]) for name in "qkvn"]
    expected = key_sparse_attention(*tensors, keep=4, scale=0.37)
    np.testing.assert_allclose(actual["context"], expected[0], atol=1e-6)
    np.testing.assert_allclose(actual["importance"], expected[1], atol=1e-6)


def test_a_graph_that_computes_something_else_is_refused(
    fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeser.export_tools import export as export_module

    trained = fresh("compact", ("text",))

    def other(model: EmotionModel, temperature: float) -> object:
        with torch.no_grad():
            model.classifier[-1].bias += 0.001  # type: ignore[index]
        return lower(model, temperature)

    monkeypatch.setattr(export_module, "lower", other)
    with pytest.raises(ParityError, match=r"logits differ from PyTorch by up to 1\.00e-03"):
        export(trained, ExportOptions(tmp_path / "m.edgeser", "m"))
    assert list(tmp_path.iterdir()) == []


def test_too_few_utterances_compare_nothing(corpus: str, fresh: Fresh, exported: Exported, tmp_path: Path) -> None:
    trained = dataclasses.replace(fresh("compact", ("text",)), training={"corpus": corpus, "held_out": "2"})
    with pytest.raises(InputError, match="the corpus gives 4 utterances, expected at least 32"):
        export(trained, ExportOptions(tmp_path / "m.edgeser", "m", corpus=corpus))
    inputs = graph_inputs(trained.frontends, read_corpus(corpus))
    expected = reference(trained.model, inputs)
    with (
        open_engine(exported(("text",))[0].graph()) as engine,
        pytest.raises(InputError, match="parity: got 8 utterances, expected at least 32"),
    ):
        compare("portable", engine, inputs, expected)


def test_encoders_get_golden_vectors_of_a_short_utterance_with_words(clips: list[Path]) -> None:
    source = Bundle.open(default_bundle())
    audio, text = (source.frontend(name) for name in ("audio", "text"))
    assert isinstance(audio, SpeechEncoder)
    assert isinstance(text, TextEncoder)
    frontends = {"audio": audio, "text": text, "other": LogMel(40)}
    clip = next(clip for clip in clips if load_audio(clip).shape[0] > 2.5 * SAMPLE_RATE)
    wordless = [Utterance(f"w{i}", clip, transcript=words) for i, words in enumerate((None, "", " "))]
    short = Utterance("short", clip, transcript="How dare you!", end_s=2.5)
    found = golden_encoders(frontends, [*wordless, short, Utterance("last", clip, transcript="No.")])
    assert list(found) == ["audio", "text"]
    np.testing.assert_array_equal(found["audio"].input, load_utterance(short))
    assert found["audio"].to_tensors()["input"].dtype == np.int16
    np.testing.assert_array_equal(found["text"].input, text.ids(text.tokens("How dare you!")))
    for name, vectors in found.items():
        assert golden.verify_frontend(frontends[name], vectors, "fp32") == 0.0
    # Nobody says anything: there is nothing to keep of the text encoder.
    assert list(golden_encoders(frontends, wordless)) == ["audio"]
    assert golden_encoders({"other": LogMel(40)}, [short]) == {}


def test_an_utterance_that_is_long_is_kept_in_part(clips: list[Path], tmp_path: Path) -> None:
    source = Bundle.open(default_bundle())
    frontends = {"audio": source.frontend("audio")}
    soundfile.write(tmp_path / "long.wav", np.tile(load_audio(clips[0]), 2), SAMPLE_RATE)
    long = Utterance("long", tmp_path / "long.wav", transcript="Dogs.")
    whole = load_utterance(long)
    assert whole.shape[0] > 4 * SAMPLE_RATE
    kept = golden_encoders(frontends, [long])["audio"].input
    np.testing.assert_array_equal(kept, whole[: 4 * SAMPLE_RATE])
    short = Utterance("short", clips[0], transcript="Dogs.", end_s=3.0)
    kept = golden_encoders(frontends, [long, short])["audio"].input
    np.testing.assert_array_equal(kept, load_utterance(short))


def test_nothing_of_this_machine_is_in_a_bundle() -> None:
    import edgeser

    raw = (Path(edgeser.__file__).parent / "pretrained" / "default.edgeser").read_bytes()
    for trace in (str(Path.home()).encode(), str(Path(edgeser.__file__).parents[1]).encode(), b"site-packages"):
        assert trace not in raw
    assert Bundle.open(Path(edgeser.__file__).parent / "pretrained" / "default.edgeser").manifest.metrics


def test_a_model_on_encoder_rows_exports_with_its_relevance() -> None:
    inputs = {"audio": InputSpec(460, 32, "onnx-encoder"), "text": InputSpec(20, 16, "onnx-encoder")}
    torch.manual_seed(0)
    model = build_model("ks-transformer", "compact", inputs, 4, layers=(0, 1, 1)).eval()
    example = {name: torch.randn(3, spec.length, spec.dim) for name, spec in inputs.items()}
    lengths = {f"{name}_length": torch.tensor([spec.length, 3, 0]) for name, spec in inputs.items()}
    model.prepare([{**example, **lengths}])
    feeds = {n: v.numpy() for n, v in {**example, **{n: v.to(torch.int32) for n, v in lengths.items()}}.items()}
    expected = reference(model, feeds, temperature=2.0)
    np.testing.assert_allclose(2.0 * expected["logits"], reference(model, feeds)["logits"], rtol=1e-6)
    for proto in lower(model, temperature=2.0).named().values():
        with open_engine(proto.SerializeToString()) as engine:
            found = engine.run(feeds)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
