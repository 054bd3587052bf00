"""Tests of two speech encoders whose rows stand side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeser.export_tools.encoders.export import EncoderOptions, export_encoder
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import SpeechEncoder, read_frontend

TINY = "whisper-tiny.en"


def exported(out: Path, layer: str, beside: str | None = None) -> SpeechEncoder:
    options = EncoderOptions(TINY, out, layer=layer, length=40, beside=beside, pause_db=30.0)
    export_encoder(dataclasses.replace(options, levels_db=(-26.0, -26.0)))
    frontend = read_frontend(out)
    assert isinstance(frontend, SpeechEncoder)
    return frontend


def test_rows_are_those_of_each_alone(tmp_path: Path, speech: Samples) -> None:
    both = exported(tmp_path / "both", "1", f"{TINY}:0+2")
    apart = [exported(tmp_path / layer, layer) for layer in ("1", "0+2")]
    heard = speech[8_000:18_000]
    rows, *others = (one.extract(heard) for one in (both, *apart))
    assert rows.shape[1] == both.dim == 3 * 384
    np.testing.assert_allclose(rows, np.concatenate(others, axis=1), atol=1e-4)
    options = both.options()
    assert (options["name"], options["layer"]) == (f"{TINY}, {TINY}", "1, 0+2")
    assert options["licence"] == "Whisper tiny.en, OpenAI, MIT"


def test_what_both_begin_with_is_computed_once(tmp_path: Path) -> None:
    export_encoder(EncoderOptions("whisper-base", tmp_path / "both", layer="1", length=8, beside=f"{TINY}:1"))
    graph = onnx.load(tmp_path / "both" / "encoder.onnx").graph
    assert sum(node.op_type == "Log" for node in graph.node) == 1
    assert sum(node.op_type == "Conv" for node in graph.node) == 1 + 2 * 2  # the spectrum, and two of each encoder


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("whisper-tiny.en", "--beside: got 'whisper-tiny.en', expected MODEL:LAYER"),
        (":2", "--beside: got ':2', expected MODEL:LAYER"),
        ("whisper-tiny.en:9", "--layer: got '9', expected 0 to 4"),
        ("minilm-l6-v2:2", "--beside: got minilm-l6-v2, expected two speech encoders"),
    ],
)
def test_refusals(tmp_path: Path, beside: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_encoder(EncoderOptions(TINY, tmp_path / "out", layer="1", length=8, beside=beside))
    assert not (tmp_path / "out").exists()
