"""Equally important rows: every engine keeps the same ones.

ONNX says that TopK puts the lower index first. ONNX Runtime 1.32 does; OpenVINO 2026.4 and PyTorch 2.13 do not, and so
keep other rows at the threshold. The kept set must rest on values alone.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeser.export_tools.lowering import OPSET, finish, quiet
from edgeser.nn.token_dropout import TokenDropout, Tokens, all_places
from edgeser.nn.transformer import Stream
from edgeser.runtime.engines import open_engine

ENGINES = ("onnxruntime", "openvino")
COUNT, RATE = 460, 0.1  # the published length: 414 stay

TIES = {
    "all equal": np.ones(COUNT),
    "two values": np.tile([1.0, 2.0], COUNT // 2),
    "half are zero": np.where(np.arange(COUNT) < COUNT // 2, np.arange(COUNT), 0.0),
    "five values": np.random.default_rng(0).integers(0, 5, COUNT).astype(np.float64),
}
LENGTHS = (COUNT, 301, 7, 1, 0)


class Dropping(nn.Module):
    """The places that stay of one module, as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = TokenDropout(COUNT, RATE)

    def forward(self, importance: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        stream = Stream(importance[:, :, None], torch.zeros(COUNT, 1), length)
        dropped = self.dropout(Tokens(stream, all_places(stream)), importance)
        return dropped.places.to(torch.int32), dropped.stream.length


@functools.cache
def dropping_graph() -> bytes:
    example = (torch.rand(2, COUNT), torch.tensor([COUNT, 3], dtype=torch.int32))
    batch = torch.export.Dim("N", min=1)
    with quiet():
        program = torch.onnx.export(
            Dropping().eval(),
            example,
            input_names=["importance", "length"],
            output_names=["places", "left"],
            dynamic_shapes=({0: batch}, {0: batch}),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return finish(program.model_proto).SerializeToString()


@pytest.mark.parametrize("engine", [*ENGINES, "torch"])
@pytest.mark.parametrize("ties", TIES)
def test_of_equally_important_rows_every_engine_keeps_the_first(ties: str, engine: str) -> None:
    importance = np.tile(TIES[ties].astype(np.float32), (len(LENGTHS), 1))
    length = np.array(LENGTHS, np.int32)
    if engine == "torch":
        places, left = (value.numpy() for value in Dropping()(torch.from_numpy(importance), torch.from_numpy(length)))
    else:
        with open_engine(dropping_graph(), engine) as opened:
            found = opened.run({"importance": importance, "length": length})
        places, left = found["places"], found["left"]
    for row, valid in enumerate(LENGTHS):
        stay = valid - int(valid * RATE + 1e-4)
        ranked = np.argsort(-importance[row, :valid], kind="stable")
        assert left[row] == stay
        assert places[row, :stay].tolist() == sorted(ranked[:stay].tolist())
