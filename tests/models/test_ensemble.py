"""Tests of several networks that answer together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from edgeser.export_tools.lowering import lower
from edgeser.export_tools.parity import TOLERANCE
from edgeser.models import EmotionModel, Ensemble, InputSpec, build_model, restore_model
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError

INPUTS = {"audio": InputSpec(40, 12, "onnx-encoder"), "text": InputSpec(6, 10, "onnx-encoder")}


@pytest.fixture
def ensemble() -> Ensemble:
    torch.manual_seed(0)
    model = build_model("ks-transformer", "compact", INPUTS, 4, members=3, layers=(1, 1, 1))
    assert isinstance(model, Ensemble)
    return model.eval()


def batch(rng: int, size: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rng)
    found: dict[str, Tensor] = {}
    for name, spec in INPUTS.items():
        length = torch.randint(1, spec.length + 1, (size,), generator=generator, dtype=torch.int32)
        rows = torch.randn(size, spec.length, spec.dim, generator=generator)
        found[name] = rows * (torch.arange(spec.length) < length[:, None])[..., None]
        found[f"{name}_length"] = length
    return found


def members(ensemble: Ensemble) -> Iterator[EmotionModel]:
    for member in ensemble.members:
        assert isinstance(member, EmotionModel)
        yield member


def test_answers_are_the_mean_of_networks_that_differ(ensemble: Ensemble) -> None:
    with torch.inference_mode():
        together = ensemble(batch(1))
        apart = [member(batch(1)) for member in members(ensemble)]
    assert not torch.allclose(apart[0].logits, apart[1].logits, atol=1e-2)
    geometric = torch.stack([one.logits.log_softmax(dim=-1) for one in apart]).mean(dim=0)
    torch.testing.assert_close(together.logits.softmax(dim=-1), geometric.softmax(dim=-1))
    for name in ("audio", "text"):
        torch.testing.assert_close(
            together.importance[name], torch.stack([one.importance[name] for one in apart]).mean(dim=0)
        )


def test_every_member_learns_for_itself(ensemble: Ensemble) -> None:
    output = ensemble.train()(batch(2))
    own = {"0", "1", "2"}
    assert own < set(output.parts)
    assert {name.split(".")[0] for name in output.parts} == own
    loss = torch.nn.functional.cross_entropy(output.parts["1"], torch.tensor([0, 1, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    touched = {name.split(".")[1] for name, p in ensemble.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"1"}


def test_what_is_measured_is_the_same_for_all(ensemble: Ensemble) -> None:
    ensemble.prepare([batch(3), batch(4)])
    for name in ("skips.audio.mean", "skips.audio.scale", "skips.text.mean"):
        first, *others = (member.get_buffer(name) for member in members(ensemble))
        assert first.abs().max() > 0
        assert all(torch.equal(other, first) for other in others)


def test_is_restored_and_exported_as_one_graph(ensemble: Ensemble) -> None:
    twin = restore_model(ensemble.family, ensemble.configuration())
    assert isinstance(twin, Ensemble)
    twin.load_state_dict(ensemble.state_dict())
    assert ensemble.configuration()["members"] == 3
    assert (twin.family, twin.parameter_count()) == ("ks-transformer", ensemble.parameter_count())
    inputs = batch(5)
    with torch.inference_mode():
        expected = twin.eval()(inputs)
    for proto in lower(twin, temperature=2.0).named().values():
        with open_engine(proto.SerializeToString(), "onnxruntime") as engine:
            outputs = engine.run({name: value.numpy() for name, value in inputs.items()})
        torch.testing.assert_close(torch.from_numpy(outputs["logits"]), expected.logits / 2.0, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(
            torch.from_numpy(outputs["audio_importance"]), expected.importance["audio"], rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("count", [0, 17, -1, True, 2.0, "3"])
def test_refusals(count: object) -> None:
    with pytest.raises(InputError, match=r"members: got .*, expected a whole number from 1 to 16"):
        build_model("ks-transformer", "compact", INPUTS, 4, members=count)  # type: ignore[arg-type]


def test_one_is_the_network_itself() -> None:
    assert not isinstance(build_model("ks-transformer", "compact", INPUTS, 4, members=1), Ensemble)
