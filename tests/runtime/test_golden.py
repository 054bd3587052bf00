from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.engines import Arrays, Engine
from edgeser.runtime.errors import BundleError, EdgeSerError, InputError, ParityError
from edgeser.runtime.golden import TOLERANCE, GoldenVectors, verify_engine
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry

LENGTHS = np.array([30, 7, 1, 46, 0, 12, 5, 9], dtype=np.int32)
ROWS = np.random.default_rng(0).standard_normal((8, 46, 40)).astype(np.float32)
ROWS[np.arange(46) >= LENGTHS[:, None]] = 0.0
INPUTS = {"audio": ROWS, "audio_length": LENGTHS}
LOGITS = np.linspace(-3, 3, 16, dtype=np.float32).reshape(8, 2)


class Shifted(Engine):
    """Gives the golden logits plus a shift, from the given vector on."""

    name = "shifted"
    inputs = outputs = ()

    def __init__(self, shift: float, first: int = 0) -> None:
        super().__init__()
        self.shift, self.first = shift, first
        self.seen: Arrays = {}

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        self.seen = feeds
        count = len(feeds["audio"])
        if count == 0:
            raise InputError("inputs: got batch sizes [0], expected one, above 0")
        logits = LOGITS[:count].copy()
        logits[self.first :] += self.shift
        return {"logits": logits}

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    def _close(self) -> None:
        pass


def bundle(path: Path, golden: bytes, precision: str = "fp32") -> Bundle:
    manifest = Manifest(
        name="tiny",
        version="1",
        model=ModelEntry("ks-transformer", "compact", {}),
        labels=("angry", "sad"),
        inputs={"audio": InputEntry(46, 40, {"kind": "log-mel", "bins": 40})},
        graphs={"portable": "model.onnx"},
        precision=precision,
    )
    return write_bundle(path / "tiny.edgeser", manifest, {"model.onnx": b"graph", GOLDEN: golden})


@pytest.mark.parametrize("precision", TOLERANCE)
def test_within_the_tolerance_of_its_precision(tmp_path: Path, precision: str) -> None:
    opened = bundle(tmp_path, GoldenVectors(INPUTS, LOGITS).to_bytes(), precision)
    limit = TOLERANCE[precision]
    engine = Shifted(0.9 * limit)
    assert verify_engine(engine, opened) == pytest.approx(0.9 * limit, rel=0.01)
    for name, value in INPUTS.items():
        np.testing.assert_array_equal(engine.seen[name], value)
    with pytest.raises(ParityError, match=f"shifted: golden vectors differ by .*, at most {limit:.0e} is expected"):
        verify_engine(Shifted(1.1 * limit), opened)


@pytest.mark.parametrize("shift", [np.nan, np.inf, -1.0])
def test_one_wrong_vector_is_enough(tmp_path: Path, shift: float) -> None:
    opened = bundle(tmp_path, GoldenVectors(INPUTS, LOGITS).to_bytes())
    with pytest.raises(ParityError, match="does not compute this model on this device"):
        verify_engine(Shifted(shift, first=7), opened)
    assert verify_engine(Shifted(shift, first=7), opened, count=7) == 0.0


def test_nothing_compared_is_no_pass(tmp_path: Path) -> None:
    empty = GoldenVectors({name: value[:0] for name, value in INPUTS.items()}, LOGITS[:0])
    with pytest.raises(EdgeSerError):
        verify_engine(Shifted(0.0), bundle(tmp_path, empty.to_bytes()))


@pytest.mark.parametrize("logits", [LOGITS[:5], LOGITS[:1], LOGITS[:, :1], LOGITS[0]])
def test_logits_of_another_shape_are_no_pass(tmp_path: Path, logits: NDArray[np.float32]) -> None:
    """NumPy would stretch one row or column over all of them."""
    with pytest.raises(EdgeSerError):
        verify_engine(Shifted(0.0), bundle(tmp_path, GoldenVectors(INPUTS, logits).to_bytes()))


@pytest.mark.parametrize("damage", ["cut", "empty", "logits"])
def test_vectors_that_are_not_usable(tmp_path: Path, damage: str) -> None:
    raw = GoldenVectors(INPUTS, LOGITS).to_bytes()
    golden = {"cut": raw[:-1], "empty": b"", "logits": raw.replace(b"logits", b"legits")}[damage]
    with pytest.raises(BundleError, match=r"golden\.safetensors is not usable"):
        verify_engine(Shifted(0.0), bundle(tmp_path, golden))


def test_padding_takes_no_room_and_halves_stay_what_they_were(tmp_path: Path) -> None:
    short = {"audio": ROWS[[1, 2]].astype(np.float16).astype(np.float32), "audio_length": LENGTHS[[1, 2]]}
    content = GoldenVectors(short, LOGITS[:2]).to_bytes()
    assert len(content) < 2 * 7 * 40 * 2 + 500
    read = GoldenVectors.from_bundle(bundle(tmp_path, content))
    for name, value in short.items():
        np.testing.assert_array_equal(read.inputs[name], value)
        assert read.inputs[name].dtype == value.dtype


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    opened = bundle(tmp_path, GoldenVectors({**INPUTS, "audio": ROWS[:, :, :39]}, LOGITS).to_bytes())
    with pytest.raises(BundleError, match="not usable: no input audio of 46 x 40"):
        GoldenVectors.from_bundle(opened)
