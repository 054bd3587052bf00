"""Every family that is registered, in each of its presets, modes and variants: train, export, agree, run, refuse.

A new family gets all of this by registering.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import graph_inputs
from edgeser.export_tools.encoders.export import EncoderOptions, export_encoder
from edgeser.export_tools.export import ExportOptions, export
from edgeser.export_tools.lowering import DOMAIN
from edgeser.export_tools.parity import TOLERANCE
from edgeser.models import FAMILIES, EmotionModel, InputSpec, build_model, restore_model
from edgeser.nn.attention import MultiHeadAttention, dense_attention
from edgeser.runtime.audio import Samples
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.frontends import Frontend
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.runtime.recognizer import Runtime
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.frontends import open_features
from edgeser.training.options import TrainOptions
from edgeser.training.trained import TrainedModel

Inputs = dict[str, NDArray[Any]]
Case = tuple[str, str, tuple[str, ...], Mapping[str, Any]]


# At its published depth the KS-Transformer (85 M parameters) takes minutes: its widths, and one of each kind of layer.
SHALLOW: Mapping[tuple[str, str], Mapping[str, Any]] = {("ks-transformer", "paper"): {"layers": (1, 1, 1)}}


def _cases() -> Iterator[Any]:
    """Every preset in each mode, and every variant; what `make test` has no time to export is `slow`."""
    for name, family in FAMILIES.items():
        for preset in family.presets:
            for mode in family.modes:
                case = (name, preset, mode, SHALLOW.get((name, preset), {}))
                marks = [pytest.mark.slow] if preset == "paper" else []
                yield pytest.param(case, id=f"{name}-{preset}-{'+'.join(mode)}", marks=marks)
        for variant, changes in family.variants.items():
            case = (name, "compact", family.modes[0], changes)
            yield pytest.param(case, id=f"{name}-{variant}", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """MiniLM's first layer, one row for a line; made when it is first asked for."""
    out = tmp_path_factory.mktemp("encoder") / "minilm"

    @functools.cache
    def make() -> Path:
        export_encoder(EncoderOptions("minilm-l6-v2", out, layer="1", pool="mean"))
        return out

    return make


@pytest.fixture(scope="module")
def utterances(wide_corpus: str) -> list[Utterance]:
    return read_corpus(wide_corpus)


@pytest.fixture
def frontends_of(
    wide_corpus: str, utterances: list[Utterance], sentence_encoder: Callable[[], Path], tmp_path: Path
) -> Callable[[str, tuple[str, ...]], dict[str, Frontend]]:
    def make(family: str, mode: tuple[str, ...]) -> dict[str, Frontend]:
        encoder = sentence_encoder() if "sentence" in mode else None
        options = TrainOptions(wide_corpus, tmp_path / "run", family=family, modalities=mode, sentence_encoder=encoder)
        found: dict[str, Frontend] = {}
        for name, source in open_features(options).items():
            if isinstance(source, RecordingFeatures):
                found[name] = source.frontend.with_statistics(source.statistics(utterances[:5]))
            else:
                assert isinstance(source, LineFeatures)
                found[name] = source.frontend
        return found

    return make


def train_a_few_steps(model: EmotionModel, inputs: Inputs, classes: Sequence[int], steps: int = 2) -> list[float]:
    """Return the losses; every parameter must get a gradient."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    reached: set[str] = set()
    losses = []
    model.train()
    for _ in range(steps):
        output = model(tensors)
        assert output.importance == {}, "importance costs time and nobody reads it in training"
        loss = functional.cross_entropy(output.logits, torch.tensor(classes))
        for part in output.parts.values():
            loss = loss + functional.cross_entropy(part, torch.tensor(classes))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}
        optimizer.step()
        losses.append(float(loss.detach()))
    untouched = {name for name, _ in model.named_parameters()} - reached
    assert not untouched, f"no gradient reaches {sorted(untouched)}"
    return losses


@pytest.mark.parametrize("case", list(_cases()))
def test_trains_exports_agrees_runs_and_refuses(
    case: Case,
    frontends_of: Callable[[str, tuple[str, ...]], dict[str, Frontend]],
    utterances: list[Utterance],
    clip: Path,
    speech: Samples,
    wide_corpus: str,
    tmp_path: Path,
) -> None:
    family, preset, mode, changes = case
    frontends = frontends_of(family, mode)
    inputs = {name: InputSpec(f.length, f.dim, f.kind) for name, f in frontends.items()}
    torch.manual_seed(0)
    model = build_model(family, preset, inputs, 4, **changes)
    assert tuple(model.inputs) == mode

    check_training(model, frontends, utterances)
    trained = TrainedModel(model.eval(), preset, frontends, FOUR_EMOTIONS, {"corpus": wide_corpus})
    bundle, reports = export(trained, ExportOptions(tmp_path / "m.edgeser", "m", utterances=32))
    is_sparse = any(isinstance(m, MultiHeadAttention) and m.attend is not dense_attention for m in model.modules())
    assert [report.graph for report in reports] == (["portable", "plugin"] if is_sparse else ["portable"])
    for report in reports:
        assert report.utterances == 32
        assert report.max_logit_difference <= TOLERANCE
        assert report.max_importance_difference <= 1e-3
        opaque = {node.domain for node in onnx.load_from_string(bundle.graph(report.graph)).graph.node}
        assert opaque == ({"", DOMAIN} if report.graph == "plugin" else {""})
        check_batches(bundle.graph(report.graph), graph_inputs(frontends, utterances[:3]))

    twin = restore_model(bundle.manifest.model.family, bundle.manifest.model.config)
    twin.load_state_dict(model.state_dict())
    check_runtime(bundle.path, twin.eval(), frontends, clip)
    check_refusals(bundle.path, bundle.graph(), case, inputs, speech)


def check_training(model: EmotionModel, frontends: Mapping[str, Frontend], utterances: list[Utterance]) -> None:
    some = utterances[:: len(utterances) // 4]
    before = copy.deepcopy(model.state_dict())
    losses = train_a_few_steps(
        model, graph_inputs(frontends, some), [FOUR_EMOTIONS.index(str(u.emotion)) for u in some]
    )
    assert np.isfinite(losses).all()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def check_batches(graph: bytes, inputs: Inputs) -> None:
    """A batch of 1, 2 or 3 utterances gives each what it gets alone."""
    with open_engine(graph) as engine:
        alone = [engine.run({n: v[i : i + 1] for n, v in inputs.items()}) for i in range(3)]
        for size in (2, 3):
            together = engine.run({name: value[:size] for name, value in inputs.items()})
            for name, value in together.items():
                assert value.shape[0] == size
                np.testing.assert_allclose(value, np.concatenate([o[name] for o in alone[:size]]), rtol=0, atol=1e-4)


def check_runtime(path: Path, model: EmotionModel, frontends: Mapping[str, Frontend], clip: Path) -> None:
    """The Runtime, from the file alone, answers as PyTorch does; with words, without, and with little to hear."""
    with Runtime.load(path, engine="onnxruntime", asr="none") as runtime:
        assert runtime.hears_words == any(name != "audio" for name in frontends)
        for transcript in ("I can't believe we won! Zorblax...", ""):
            utterance = Utterance("u", clip, transcript=transcript)
            with torch.inference_mode():
                tensors = {n: torch.from_numpy(v) for n, v in graph_inputs(frontends, [utterance]).items()}
                output = model(tensors)
            expected = output.logits.softmax(dim=-1)[0].tolist()
            result = runtime.recognize(clip, transcript=transcript)
            assert list(result.probabilities.values()) == pytest.approx(expected, abs=1e-4)
            assert tuple(output.importance) == model.importances
            for name, importance in output.importance.items():
                valid = int(tensors[f"{name}_length"][0])
                assert importance.shape == (1, model.inputs[name].length)
                assert bool((importance >= 0).all())
                assert bool((importance[0, valid:] == 0).all()), f"padding of {name} has importance"
                assert valid == 0 or float(importance.sum()) > 0
            assert bool(result.spans) == ("audio" in model.importances)


def check_refusals(path: Path, graph: bytes, case: Case, inputs: Mapping[str, InputSpec], speech: Samples) -> None:
    family, preset, mode, _ = case
    with Runtime.load(path, engine="onnxruntime", asr="none", self_test=False) as runtime:
        for bad in (speech[:0], np.full(16_000, np.nan, dtype=np.float32)):
            with pytest.raises(InputError, match="audio: "):
                runtime.recognize(bad, 16_000)
    with open_engine(graph) as engine:
        feeds = {n: np.zeros((1, s.length, s.dim), np.float32) for n, s in inputs.items()}
        feeds.update({f"{n}_length": np.zeros(1, np.int32) for n in inputs})
        assert np.isfinite(engine.run(feeds)["logits"]).all()
        narrow = {**feeds, mode[0]: feeds[mode[0]][:, :, :-1]}
        with pytest.raises(EdgeSerError, match=mode[0]):
            engine.run(narrow)
    for kind, arguments in (
        (f"{family}: got preset 'tiny'", (family, "tiny", inputs, 4)),
        (f"{family}: got modalities", (family, preset, {**inputs, "video": InputSpec(8, 8, "video")}, 4)),
    ):
        with pytest.raises(InputError, match=kind):
            build_model(*arguments)
    with pytest.raises(InputError, match=r"unknown option|got .*colour"):
        build_model(family, preset, inputs, 4, colour="red")


@pytest.mark.parametrize("name", FAMILIES)
def test_published_sizes_train(
    name: str, frontends_of: Callable[[str, tuple[str, ...]], dict[str, Frontend]], utterances: list[Utterance]
) -> None:
    """That they export and run too is `-m slow`."""
    mode = FAMILIES[name].modes[0]
    frontends = frontends_of(name, mode)
    inputs = {n: InputSpec(f.length, f.dim, f.kind) for n, f in frontends.items()}
    torch.manual_seed(0)
    model = build_model(name, "paper", inputs, 4, **SHALLOW.get((name, "paper"), {}))
    assert tuple(model.inputs) == mode
    check_training(model, frontends, utterances)


@pytest.mark.parametrize(("name", "variant"), [(n, v) for n, f in FAMILIES.items() for v in f.variants])
def test_variants_train_and_differ(
    name: str,
    variant: str,
    frontends_of: Callable[[str, tuple[str, ...]], dict[str, Frontend]],
    utterances: list[Utterance],
) -> None:
    """That they export too is `-m slow`."""
    family = FAMILIES[name]
    frontends = frontends_of(name, family.modes[0])
    inputs = {n: InputSpec(f.length, f.dim, f.kind) for n, f in frontends.items()}
    models = []
    for changes in ({}, family.variants[variant]):
        torch.manual_seed(0)
        models.append(build_model(name, "compact", inputs, 4, **changes))
    plain, changed = (model.eval() for model in models)
    tensors = {n: torch.from_numpy(v) for n, v in graph_inputs(frontends, utterances[:2]).items()}
    with torch.inference_mode():
        answers = [model(tensors).logits for model in (plain, changed)]
    # A weight that starts where the variant fixes it gives the same answer at first.
    has_others = plain.state_dict().keys() != changed.state_dict().keys()
    assert has_others or not torch.allclose(*answers, atol=1e-6)
    check_training(changed, frontends, utterances)


@pytest.mark.parametrize("name", FAMILIES)
def test_configurations_are_plain_and_complete(name: str) -> None:
    family = FAMILIES[name]
    assert family.family == name
    assert family.presets == ("paper", "compact")
    shape = family.log_mel
    for mode in family.modes:
        inputs = {
            "audio": InputSpec(shape.length, shape.bins, "log-mel"),
            "text": InputSpec(20, 50, "word-vectors"),
            "phonemes": InputSpec(20, 16, "phonemes"),
            "sentence": InputSpec(1, 384, "onnx-encoder"),
        }
        model = build_model(name, "compact", {n: inputs[n] for n in mode}, 7)
        plain = json.loads(json.dumps(model.configuration()))
        twin = restore_model(name, plain)
        assert json.loads(json.dumps(twin.configuration())) == plain
        assert {n: dataclasses.asdict(s) for n, s in twin.inputs.items()} == {
            n: dataclasses.asdict(s) for n, s in model.inputs.items()
        }
        assert twin.parameter_count() == model.parameter_count()
