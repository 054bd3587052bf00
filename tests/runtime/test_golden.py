from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from edgeser.runtime.audio import Samples
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.cpu import integers_are_exact
from edgeser.runtime.engines import Arrays, Engine, open_engine
from edgeser.runtime.errors import BundleError, EdgeSerError, InputError, ParityError
from edgeser.runtime.frontends import Frontend, LogMel, SpeechEncoder, TextEncoder
from edgeser.runtime.frontends.speech_rows import rows_of_speech
from edgeser.runtime.golden import (
    ENCODER_TOLERANCE,
    TOLERANCE,
    EncoderVectors,
    GoldenVectors,
    encoder_vectors,
    prove,
    unproved,
    verify_engine,
    verify_frontend,
)
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry
from edgeser.runtime.recognizer import default_bundle

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


SPEECH = {"kind": "onnx-encoder", "input": "speech"}
TEXT = {"kind": "onnx-encoder", "input": "text"}
HEARD = EncoderVectors(
    np.arange(-4, 4, dtype=np.float32) / 32768,
    np.random.default_rng(1).standard_normal((3, 40)).astype(np.float16).astype(np.float32),
)
SAID = EncoderVectors(np.array([2, 7, 3], np.int32), HEARD.rows)


def bundle(path: Path, golden: bytes, precision: str = "fp32", frontend: Mapping[str, Any] | None = None) -> Bundle:
    manifest = Manifest(
        name="tiny",
        version="1",
        model=ModelEntry("ks-transformer", "compact", {}),
        labels=("angry", "sad"),
        inputs={"audio": InputEntry(46, 40, frontend or {"kind": "log-mel", "bins": 40})},
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


def test_what_the_model_gave_before_it_was_quantized(tmp_path: Path) -> None:
    opened = bundle(tmp_path, GoldenVectors(INPUTS, LOGITS, LOGITS + np.float32(0.125)).to_bytes(), "int8")
    read = GoldenVectors.from_bundle(opened)
    assert read.reference is not None
    np.testing.assert_array_equal(read.reference, LOGITS + np.float32(0.125))
    assert set(read.inputs) == set(INPUTS)
    assert verify_engine(Shifted(0.0), opened) == 0.0  # an engine is held to the graph's own logits
    with pytest.raises(BundleError, match=r"not usable: reference \(7, 2\), logits \(8, 2\)"):
        GoldenVectors.from_bundle(bundle(tmp_path, GoldenVectors(INPUTS, LOGITS, LOGITS[:7]).to_bytes()))


def test_vectors_from_before_there_were_more(tmp_path: Path) -> None:
    opened = bundle(tmp_path, GoldenVectors(INPUTS, LOGITS).to_bytes(), frontend=SPEECH)
    read = GoldenVectors.from_bundle(opened)
    assert (read.reference, read.encoders) == (None, {})
    assert unproved(opened) == ("audio",)
    assert unproved(bundle(tmp_path, GoldenVectors(INPUTS, LOGITS).to_bytes())) == ()


@pytest.mark.parametrize(("frontend", "vectors"), [(SPEECH, HEARD), (TEXT, SAID)], ids=["speech", "text"])
def test_encoders_are_read_as_they_were_written(
    tmp_path: Path, frontend: Mapping[str, Any], vectors: EncoderVectors
) -> None:
    content = GoldenVectors(INPUTS, LOGITS, encoders={"audio": vectors}).to_bytes()
    assert len(content) < len(GoldenVectors(INPUTS, LOGITS).to_bytes()) + vectors.input.size * 4 + 3 * 40 * 2 + 300
    opened = bundle(tmp_path, content, frontend=frontend)
    read = GoldenVectors.from_bundle(opened).encoders["audio"]
    for found, written in ((read.input, vectors.input), (read.rows, vectors.rows)):
        np.testing.assert_array_equal(found, written)
        assert found.dtype == written.dtype
    assert unproved(opened) == ()


@pytest.mark.parametrize(
    ("samples", "stored"),
    [
        ([-1.0, 0.0, 32767 / 32768], "int16"),
        ([0.5 / 32768, 0.0], "float32"),
        ([1.0], "float32"),
        ([-1.0 - 1 / 32768], "float32"),
        ([1e9], "float32"),
    ],
)
def test_samples_are_stored_as_pcm_where_that_is_exact(samples: list[float], stored: str) -> None:
    given = np.array(samples, np.float32)
    tensors = EncoderVectors(given, HEARD.rows).to_tensors()
    assert tensors["input"].dtype == stored
    np.testing.assert_array_equal(EncoderVectors.from_tensors(**_named(tensors)).input, given)


def test_rows_that_half_precision_cannot_hold_are_kept_whole() -> None:
    large = HEARD.rows * np.float32(1e5)
    tensors = EncoderVectors(HEARD.input, large).to_tensors()
    np.testing.assert_array_equal(EncoderVectors.from_tensors(**_named(tensors)).rows, large)


def _named(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {"given": tensors["input"], "rows": tensors["rows"]}


@pytest.mark.parametrize(
    ("frontend", "vectors"),
    [
        ({"kind": "log-mel", "input": "speech"}, HEARD),
        (TEXT, HEARD),
        (SPEECH, SAID),
        ({"kind": "onnx-encoder", "input": ["speech"]}, HEARD),
        (SPEECH, EncoderVectors(HEARD.input[None], HEARD.rows)),
        (SPEECH, EncoderVectors(HEARD.input, HEARD.rows[:, :39])),
        (SPEECH, EncoderVectors(HEARD.input, HEARD.rows[0])),
        (SPEECH, EncoderVectors(HEARD.input, HEARD.rows[:0])),
        (SPEECH, EncoderVectors(HEARD.input, np.tile(HEARD.rows, (16, 1)))),
        (SPEECH, EncoderVectors(HEARD.input, np.ones_like(HEARD.rows))),
        (SPEECH, EncoderVectors(HEARD.input, np.full_like(HEARD.rows, np.nan))),
    ],
)
def test_encoder_vectors_that_are_not_usable(
    tmp_path: Path, frontend: Mapping[str, Any], vectors: EncoderVectors
) -> None:
    content = GoldenVectors(INPUTS, LOGITS, encoders={"audio": vectors}).to_bytes()
    with pytest.raises(BundleError, match="not usable: no rows up to 46 x 40 of the encoder of audio, or no input"):
        GoldenVectors.from_bundle(bundle(tmp_path, content, frontend=frontend))


def test_half_of_an_encoders_vectors_is_not_usable(tmp_path: Path) -> None:
    content = GoldenVectors(INPUTS, LOGITS, encoders={"audio": HEARD}).to_bytes()
    for part in (b"encoder.audio.rows", b"encoder.audio.input"):
        damaged = content.replace(part, b"x" * len(part))
        with pytest.raises(BundleError, match="not usable: no rows"):
            GoldenVectors.from_bundle(bundle(tmp_path, damaged, frontend=SPEECH))


def test_real_encoders_and_what_is_kept_of_them(
    encoders: Mapping[str, Frontend], vectors: Mapping[str, EncoderVectors], speech: Samples, proved: Path
) -> None:
    """The clip's samples and its words' ids, without padding; the rows differ by their rounding to half precision."""
    np.testing.assert_array_equal(vectors["audio"].input, speech)
    assert vectors["audio"].rows.shape[0] == rows_of_speech(speech, 320, 320, 30.0).size
    assert vectors["text"].input.shape == (8,)
    assert vectors["text"].rows.shape == (6, 384)
    opened = Bundle.open(proved)
    kept = GoldenVectors.from_bundle(opened).encoders
    assert list(kept) == ["audio", "text"]
    for name, read in kept.items():
        np.testing.assert_array_equal(read.input, vectors[name].input)
        assert verify_frontend(encoders[name], vectors[name], "fp32") < 1e-5
        assert 1e-5 < verify_frontend(encoders[name], read, "fp32") < 5e-4
    with open_engine(opened.graph()) as engine:
        proof = prove(engine, encoders, opened)
    assert proof.logits <= 1e-5
    assert proof.rows == {name: verify_frontend(encoders[name], kept[name], "fp32") for name in kept}


def test_rows_are_what_the_encoder_gives_before_they_are_normalised(
    encoders: Mapping[str, Frontend], vectors: Mapping[str, EncoderVectors], speech: Samples
) -> None:
    audio = encoders["audio"]
    assert isinstance(audio, SpeechEncoder)
    np.testing.assert_allclose(audio.statistics.normalise(vectors["audio"].rows), audio.rows(speech), rtol=1e-6)
    text = encoders["text"]
    assert isinstance(text, TextEncoder)
    words = text.tokens("dogs are sitting by the door")
    np.testing.assert_array_equal(text.rows(words), vectors["text"].rows)


def test_a_long_utterance_is_kept_as_far_as_it_is_heard(encoders: Mapping[str, Frontend], speech: Samples) -> None:
    tiled = np.tile(speech, 3)
    long = encoder_vectors(encoders["audio"], tiled)
    assert long.input.shape == (147_200,)
    assert long.rows.shape[0] == rows_of_speech(tiled[:147_200], 320, 320, 30.0).size
    assert encoder_vectors(encoders["text"], "the door " * 20).input.shape == (22,)


@pytest.mark.parametrize("precision", ENCODER_TOLERANCE)
@pytest.mark.parametrize("name", ["audio", "text"])
def test_encoders_within_the_tolerance_of_their_precision(
    encoders: Mapping[str, Frontend], vectors: Mapping[str, EncoderVectors], name: str, precision: str
) -> None:
    limit = ENCODER_TOLERANCE[precision]
    rows = vectors[name].rows.astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    noise *= rows.std() / np.sqrt(np.mean(noise**2))

    def shifted(share: float) -> EncoderVectors:
        return dataclasses.replace(vectors[name], rows=(rows + share * limit * noise).astype(np.float32))

    assert verify_frontend(encoders[name], shifted(0.9), precision) == pytest.approx(0.9 * limit, rel=0.02)
    with pytest.raises(
        ParityError,
        match=rf"onnxruntime: encoder .+: golden rows differ by .+ deviations, at most {limit:.0e} is expected",
    ):
        verify_frontend(encoders[name], shifted(1.1), precision)


def test_encoders_that_give_other_rows_than_their_vectors(
    encoders: Mapping[str, Frontend], vectors: Mapping[str, EncoderVectors]
) -> None:
    fewer = dataclasses.replace(vectors["text"], rows=vectors["text"].rows[:5])
    with pytest.raises(ParityError, match=r"gives rows \(6, 384\), its golden vectors are \(5, 384\)"):
        verify_frontend(encoders["text"], fewer, "fp32")
    damaged = dataclasses.replace(vectors["text"], rows=vectors["text"].rows * np.float32(np.nan))
    with pytest.raises(ParityError, match="does not compute this encoder on this device"):
        verify_frontend(encoders["text"], damaged, "int8")


def test_encoder_vectors_of_something_else(encoders: Mapping[str, Frontend], speech: Samples) -> None:
    for name, heard in (("audio", "the door"), ("text", speech)):
        with pytest.raises(InputError, match=r"encoder vectors: got (str|ndarray) for (Speech|Text)Encoder"):
            encoder_vectors(encoders[name], heard)
    with pytest.raises(InputError, match="encoder vectors: got ndarray for LogMel"):
        encoder_vectors(LogMel(40), speech)
    with pytest.raises(InputError, match="got LogMel, expected a SpeechEncoder or TextEncoder"):
        verify_frontend(LogMel(40), HEARD, "fp32")
    with pytest.raises(InputError, match="ids: got 2, expected 3 to 22: start, tokens, end"):
        encoder_vectors(encoders["text"], "")
    with pytest.raises(InputError, match="got 10 samples"):
        encoder_vectors(encoders["audio"], speech[:10])


@pytest.mark.usefixtures("openvino")
def test_openvino_computes_the_default_bundle(proved: Path) -> None:
    """Where it multiplies codes in floating point, for want of VNNI, a value on the border between two may move.

    Float products are added in an order of the processor's: 1e-6 apart with VNNI, 8.1e-5 with AMX (OpenVINO 2026.4).
    """
    limit = 2e-4 if integers_are_exact() else 2e-3
    opened = Bundle.open(proved)
    inputs = GoldenVectors.from_bundle(opened).inputs
    with open_engine(opened.graph(), "openvino") as engine, open_engine(opened.graph(), "onnxruntime") as reference:
        assert (engine.inputs, engine.outputs) == (reference.inputs, reference.outputs)
        assert verify_engine(engine, opened) <= limit
        found, expected = engine.run(inputs), reference.run(inputs)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=limit, err_msg=name)


@pytest.mark.usefixtures("openvino")
def test_openvino_computes_the_encoders_as_they_are_written(vectors: Mapping[str, EncoderVectors]) -> None:
    """In INT8 a value on the border between two codes may round either way in another engine."""
    bundle = Bundle.open(default_bundle())
    for name, expected in vectors.items():
        frontend = bundle.frontend(name, lambda graph: open_engine(graph, "openvino"))
        assert verify_frontend(frontend, expected, "int8") < 0.06
        frontend.close()


def damaged(**changed: NDArray[Any] | None) -> bytes:
    """Return golden vectors with tensors changed, added or taken away; `_` for the point in their names."""
    tensors: dict[str, NDArray[Any]] = {"input.audio": ROWS, "input.audio_length": LENGTHS, "logits": LOGITS}
    for name, value in changed.items():
        tensors.pop(name.replace("input_", "input."), None)
        if value is not None:
            tensors[name.replace("input_", "input.")] = np.ascontiguousarray(value)
    return save(tensors)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": LOGITS.astype(np.int64)}, "no logits of (N, 2) finite float32"),
        ({"logits": LOGITS.astype(np.float64)}, "no logits of (N, 2) finite float32"),
        ({"logits": np.where(LOGITS > 2, np.float32(np.nan), LOGITS)}, "no logits of (N, 2) finite float32"),
        ({"logits": np.zeros((8, 3), np.float32)}, "no logits of (N, 2) finite float32"),
        ({"logits": np.zeros((0, 2), np.float32)}, "no logits of (N, 2) finite float32"),
        ({"logits": np.zeros((1001, 2), np.float32)}, "no logits of (N, 2) finite float32"),
        ({"reference": LOGITS.astype(np.complex64)}, "no reference of (N, 2) finite float32"),
        ({"input_audio": None}, "no input audio of 46 x 40 for 8 vectors"),
        ({"input_audio": ROWS[:7]}, "no input audio of 46 x 40 for 8 vectors"),
        ({"input_audio": ROWS.astype(np.float64)}, "no input audio of 46 x 40 for 8 vectors"),
        ({"input_audio": np.where(ROWS > 2, np.float32(np.inf), ROWS)}, "input audio holds NaN or infinity"),
        ({"input_audio_length": None}, "no input audio_length of (8,) int32, 0 to 46"),
        ({"input_audio_length": LENGTHS[:7]}, "no input audio_length of (8,) int32, 0 to 46"),
        ({"input_audio_length": LENGTHS + np.int32(1)}, "no input audio_length of (8,) int32, 0 to 46"),
        ({"input_audio_length": LENGTHS - np.int32(1)}, "no input audio_length of (8,) int32, 0 to 46"),
        ({"input_audio_length": LENGTHS.astype(np.int64)}, "no input audio_length of (8,) int32, 0 to 46"),
        ({"input_video": ROWS}, "input.video: the model has no such input"),
    ],
)
def test_vectors_that_do_not_fit_the_bundle(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"tiny.edgeser: golden.safetensors is not usable: {re.escape(message)}"):
        GoldenVectors.from_bundle(bundle(tmp_path, damaged(**changed)))


def test_vectors_that_would_fill_the_memory_when_padded(tmp_path: Path) -> None:
    """No rows at all are stored: 32 bytes would become 4 GB."""
    wide = InputEntry(1000, 1000, {"kind": "log-mel", "bins": 40})
    golden = {"input.audio": np.zeros((1000, 0, 1000), np.float32), "input.audio_length": np.zeros(1000, np.int32)}
    opened = bundle(tmp_path, save({**golden, "logits": np.zeros((1000, 2), np.float32)}))
    opened.manifest = dataclasses.replace(opened.manifest, inputs={"audio": wide})
    with pytest.raises(BundleError, match="1000 vectors are more than 134,217,728 numbers"):
        GoldenVectors.from_bundle(opened)


def test_types_that_numpy_has_not(tmp_path: Path) -> None:
    raw = damaged().replace(b'"F32"', b'"I32"')
    with pytest.raises(BundleError, match="not usable: no logits"):
        GoldenVectors.from_bundle(bundle(tmp_path, raw))
    header = b'{"logits":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    with pytest.raises(BundleError, match="not usable: 'BF16'"):
        GoldenVectors.from_bundle(bundle(tmp_path, len(header).to_bytes(8, "little") + header + bytes(2)))
