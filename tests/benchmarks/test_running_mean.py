"""What a running mean buys, of a bundle that was trained for it, on real clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.recognizer import Runtime

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "running_mean.py"


@pytest.fixture
def benchmark(load_benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    return load_benchmark(BENCHMARK)


@pytest.fixture
def nemo(voices: str) -> list[Utterance]:
    return [one for one in read_corpus(voices) if one.corpus == "nemo"]


def test_a_clip_is_answered_as_the_runtime_answers_it(benchmark: Any, nemo: list[Utterance], centered: Path) -> None:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        heard = benchmark.hear(runtime, nemo)
        order = [2, 0, 3, 1]
        labels = benchmark.in_order(runtime, heard, order, runtime.open_state())
        state = runtime.open_state()
        for place in order:
            result = runtime.recognize(load_utterance(nemo[place]), 16_000, transcript="", state=state)
            assert labels[place] == result.label
        measured = dict(benchmark.rows(runtime, heard, 2))
    assert list(measured) == ["cold", "what came before", "the same, without the first 1", "the whole corpus"]
    assert all(0.0 <= value <= 1.0 for value in measured.values())
    assert np.isfinite(list(measured.values())).all()
