from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from edgeser.runtime.audio import Samples
from edgeser.runtime.bundle import write_bundle
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import BundleError, EngineError, InputError
from edgeser.runtime.frontends import SpeechEncoder, Statistics, TextEncoder, Token, restore_frontend
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry

Build = Callable[..., bytes]
SPEECH: dict[str, Any] = {
    "name": "sliced",
    "architecture": "none",
    "layer": "1",
    "hop_s": 4 / 16_000,
    "window_s": 4 / 16_000,
    "normalisation": "none",
}
TEXT: dict[str, Any] = {"name": "ids", "architecture": "none", "layer": "1", "start": 2, "end": 3, "padding": 0}


def excerpt(speech: Samples, size: int) -> Samples:
    return speech[20_000 : 20_000 + size]


@pytest.fixture
def plain(speech_graph: Build) -> SpeechEncoder:
    return SpeechEncoder(6, SPEECH, {"encoder.onnx": speech_graph()}.__getitem__)


@pytest.fixture
def text(text_graph: Build, tokenizer: bytes) -> TextEncoder:
    return TextEncoder(3, TEXT, {"encoder.onnx": text_graph(), "tokenizer.json": tokenizer}.__getitem__)


@pytest.mark.parametrize(
    ("size", "valid", "total"), [(4, 1, 1), (7, 1, 1), (8, 2, 2), (23, 5, 5), (24, 6, 6), (28, 6, 7), (9_600, 6, 2400)]
)
def test_rows_of_exact_multiples_and_their_neighbours(
    plain: SpeechEncoder, speech: Samples, size: int, valid: int, total: int
) -> None:
    samples = excerpt(speech, size)
    features = plain(samples)
    assert (features.values.shape, features.values.dtype) == ((6, 4), np.float32)
    assert (features.valid, features.total) == (valid, total)
    np.testing.assert_array_equal(features.values[:valid].ravel(), samples[: 4 * valid])
    assert not features.values[valid:].any()
    np.testing.assert_array_equal(plain.rows(samples), features.values[:valid])


def test_what_the_graph_is_given(speech_graph: Build, speech: Samples) -> None:
    """Its length input counts the samples, the padding left out, and never more than fit."""
    frontend = SpeechEncoder(6, SPEECH, lambda _: speech_graph(with_length=True))
    for size in (4, 11, 24, 300):
        samples = excerpt(speech, size)
        rows = frontend.extract(samples)
        heard = samples[: 4 * rows.shape[0]].reshape(-1, 4)
        np.testing.assert_array_equal(rows, heard + np.float32(min(size, 24)))


def test_zero_mean_and_unit_variance_of_what_is_heard(speech_graph: Build, speech: Samples) -> None:
    """As `transformers`: of the utterance by itself, before it is padded, and with 1e-7 beside the variance."""
    description = SPEECH | {"normalisation": "zero-mean-unit-variance"}
    frontend = SpeechEncoder(6, description, lambda _: speech_graph())
    for size in (12, 24, 300):
        heard = excerpt(speech, size)[:24].astype(np.float64)
        expected = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
        np.testing.assert_allclose(frontend.rows(excerpt(speech, size)).ravel(), expected, rtol=1e-3, atol=1e-4)
    assert not frontend.rows(np.zeros(24, np.float32)).any()


def test_what_comes_after_the_window_is_not_heard(plain: SpeechEncoder, speech: Samples) -> None:
    np.testing.assert_array_equal(plain(excerpt(speech, 24)).values, plain(excerpt(speech, 5_000)).values)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_shorter_than_a_row_is_refused(plain: SpeechEncoder, size: int) -> None:
    for call in (plain, plain.rows, plain.extract):
        with pytest.raises(InputError, match=rf"got {size} samples .*, expected at least 4 \(0 ms\)"):
            call(np.zeros(size, np.float32))


def test_statistics_normalise_rows_and_not_padding(plain: SpeechEncoder, speech: Samples) -> None:
    statistics = Statistics(np.array([0, 1, 2, 3], np.float32), np.array([1, 2, 4, 8], np.float32))
    other = plain.with_statistics(statistics)
    samples = excerpt(speech, 13)
    np.testing.assert_array_equal(other.extract(samples), plain.extract(samples))
    features = other(samples)
    np.testing.assert_array_equal(features.values[:3], (samples[:12].reshape(3, 4) - statistics.mean) / statistics.std)
    assert not features.values[3:].any()
    np.testing.assert_array_equal(plain(samples).values[:3].ravel(), samples[:12])
    with pytest.raises(InputError, match=r"statistics: mean \(5,\) and std \(5,\), expected \(4,\)"):
        plain.with_statistics(Statistics.none(5))


def test_frontends_that_differ_in_statistics_share_an_engine(speech_graph: Build, speech: Samples) -> None:
    opened: list[Engine] = []

    def open_graph(graph: bytes) -> Engine:
        opened.append(open_engine(graph))
        return opened[-1]

    first = SpeechEncoder(6, SPEECH, lambda _: speech_graph(), open_graph)
    second = first.with_statistics(Statistics.none(4)).with_statistics(Statistics.none(4))
    assert len(opened) == 1
    second.rows(excerpt(speech, 8))
    first.close()
    first.close()
    for frontend in (first, second):
        with pytest.raises(EngineError, match="the engine is closed"):
            frontend.rows(excerpt(speech, 8))


def test_rows_that_are_not_finite(failing_graph: bytes) -> None:
    frontend = SpeechEncoder(6, SPEECH, lambda _: failing_graph)
    assert np.isfinite(frontend.rows(np.ones(24, np.float32))).all()
    with pytest.raises(EngineError, match="rows holds NaN or infinity"):
        frontend.rows(np.zeros(24, np.float32))


def test_pauses_give_no_rows(speech_graph: Build) -> None:
    files = {"encoder.onnx": speech_graph(), "statistics.safetensors": Statistics.none(4).to_bytes()}
    spec = {"kind": "onnx-encoder", "input": "speech", **SPEECH, "pause_db": 20.0}
    frontend = restore_frontend(6, spec, files.__getitem__)
    assert isinstance(frontend, SpeechEncoder)
    samples = np.repeat(np.array([0.5, 0.04, 0.06, 0.0, 0.5, 0.1, 0.9], np.float32), 4)
    features = frontend(samples)
    assert (features.valid, features.total) == (4, 7)
    np.testing.assert_array_equal(features.moments, [0, 2, 4, 5])  # 0.05 is 20 dB under 0.5
    np.testing.assert_array_equal(features.values[:4, 0], samples[[0, 8, 16, 20]])
    assert not features.values[4:].any()
    np.testing.assert_array_equal(features.without(features.values[0]).moments, features.moments)
    np.testing.assert_array_equal(frontend.extract(samples), features.values[:4])
    assert frontend.options() == {**SPEECH, "pause_db": 20.0, "input": "speech"}
    assert frontend(np.zeros(8, np.float32)).valid == 2


def test_a_level_is_brought_between_two(speech_graph: Build, speech: Samples) -> None:
    files = {"encoder.onnx": speech_graph(), "statistics.safetensors": Statistics.none(4).to_bytes()}
    levels = {"lowest_level_db": -20.0, "highest_level_db": -14.0}
    frontend = restore_frontend(6, {"kind": "onnx-encoder", "input": "speech", **SPEECH, **levels}, files.__getitem__)
    assert isinstance(frontend, SpeechEncoder)
    heard = excerpt(speech, 24)
    heard = heard * np.float32(0.15) / np.sqrt(np.mean(np.square(heard)))
    np.testing.assert_allclose(frontend.extract(heard)[:, 0], heard[::4], rtol=1e-5)  # -16.5 dB is between them
    quiet, loud = (frontend.extract(heard * np.float32(level)) for level in (0.01, 8.0))
    assert np.sqrt(np.mean(np.square(quiet))) == pytest.approx(0.1, rel=0.3)
    np.testing.assert_allclose(loud, quiet * 10 ** (6 / 20), rtol=1e-4)
    assert not frontend.extract(np.zeros(24, np.float32)).any()
    assert frontend.options() == {**SPEECH, **levels, "input": "speech"}


def test_speech_is_restored_as_it_was(speech_graph: Build, speech: Samples) -> None:
    statistics = Statistics(np.full(4, 0.1, np.float32), np.full(4, 3, np.float32))
    description = SPEECH | {"licence": "MIT", "weights": "lossless"}
    original = SpeechEncoder(6, description, lambda _: speech_graph(with_length=True), statistics=statistics)
    spec = {"kind": "onnx-encoder", **original.options()}
    assert spec == {"kind": "onnx-encoder", "input": "speech", **description}
    restored = restore_frontend(6, spec, original.files().__getitem__)
    assert isinstance(restored, SpeechEncoder)
    assert (restored.kind, restored.length, restored.dim) == ("onnx-encoder", 6, 4)
    assert restored.options() == original.options()
    assert restored.files() == original.files()
    np.testing.assert_array_equal(restored(excerpt(speech, 15)).values, original(excerpt(speech, 15)).values)


def test_text_is_restored_as_it_was(text: TextEncoder) -> None:
    spec = {"kind": "onnx-encoder", **text.options()}
    assert spec == {"kind": "onnx-encoder", "input": "text", **TEXT}
    restored = restore_frontend(3, spec, text.files().__getitem__)
    assert isinstance(restored, TextEncoder)
    assert (restored.kind, restored.length, restored.dim) == ("onnx-encoder", 3, 2)
    assert restored.files() == text.files()
    np.testing.assert_array_equal(restored("Doors!").values, text("Doors!").values)


def test_the_users_engine_opens_the_graph(speech_graph: Build) -> None:
    files = SpeechEncoder(6, SPEECH, lambda _: speech_graph()).files()
    opened: list[bytes] = []

    def open_graph(graph: bytes) -> Engine:
        opened.append(graph)
        return open_engine(graph, threads=2)

    restore_frontend(6, {"kind": "onnx-encoder", "input": "speech", **SPEECH}, files.__getitem__, open_graph)
    assert opened == [speech_graph()]


def test_tokens_become_rows_in_their_place(text: TextEncoder) -> None:
    """`the` is 4, `door` 5, `##s` 6; five ids with start and end are valid."""
    assert text.tokens("The doors") == [Token("the", 0, 3), Token("door", 4, 8), Token("##s", 8, 9)]
    features = text("The doors")
    assert (features.valid, features.total) == (3, 3)
    assert features.values.tolist() == [[4, 5], [5, 5], [6, 5]]
    short = text("Snow!")  # an unknown word keeps its place
    assert (short.valid, short.values.tolist()) == (2, [[1, 4], [7, 4], [0, 0]])


def test_the_first_tokens_are_kept(text: TextEncoder) -> None:
    """The file's own truncation to 2 and padding to 4 tokens are off."""
    features = text("the door ! the door")
    assert (features.valid, features.total) == (3, 5)
    np.testing.assert_array_equal(features.values, text("the door !").values)
    np.testing.assert_array_equal(text.rows(text.tokens("the door ! the door")), features.values)


def test_rows_of_what_the_graph_takes(text: TextEncoder) -> None:
    """A transcript's ids, kept without its padding, give its rows again."""
    tokens = text.tokens("the doors !")
    ids = text.ids(tokens)
    assert (ids.tolist(), ids.dtype) == ([2, 4, 5, 6, 3], np.int32)  # the fourth token has no row
    np.testing.assert_array_equal(text.extract(ids), text.rows(tokens))
    short = text.ids(text.tokens("the"))
    assert short.tolist() == [2, 4, 3]
    assert text.extract(short).tolist() == [[4, 3]]
    assert text.ids([]).tolist() == [2, 3]
    for wrong in (text.ids([]), np.arange(6, dtype=np.int32)):
        with pytest.raises(InputError, match=rf"ids: got {wrong.size}, expected 3 to 5: start, tokens, end"):
            text.extract(wrong)


@pytest.mark.parametrize("pool", ["start", "mean"])
def test_one_row_for_the_whole_line(line_graph: Build, tokenizer: bytes, pool: str) -> None:
    files = {"encoder.onnx": line_graph(), "tokenizer.json": tokenizer}
    line = TextEncoder(1, TEXT | {"pool": pool}, files.__getitem__)
    assert (line.length, line.window, line.dim) == (1, 3, 2)
    for transcript, ids, total in (("the", [4], 1), ("The doors", [4, 5, 6], 1), ("the door ! the door", [4, 5, 7], 3)):
        features = line(transcript)
        assert (features.valid, features.total) == (1, total)  # more than one says that the line was cut
        assert features.values.tolist() == [[2, 2 + sum(ids) + 3]]
        np.testing.assert_array_equal(line.extract(line.ids(line.tokens(transcript))), features.values)
    for nothing in ("", " \n"):
        features = line(nothing)
        assert (features.valid, features.total, features.values.tolist()) == (0, 0, [[0, 0]])
    restored = restore_frontend(1, {"kind": "onnx-encoder", **line.options()}, line.files().__getitem__)
    assert isinstance(restored, TextEncoder)
    assert restored.options() == line.options()
    assert restored.window == 3
    np.testing.assert_array_equal(restored("doors").values, line("doors").values)


@pytest.mark.parametrize(
    ("length", "size", "rows", "pool", "message"),
    [
        (1, 5, 1, "max", "pool 'max' of 1 rows, expected start or mean of 1"),
        (1, 5, 1, None, "pool None of 1 rows, expected start or mean of 1"),
        (3, 5, 3, "mean", "pool 'mean' of 3 rows, expected start or mean of 1"),
        (1, 5, 3, "mean", r"expected rows \(N, 1, dim\)"),
        (1, 2, 1, "mean", r"expected ids \(N, window \+ 2\)"),
    ],
)
def test_lines_that_do_not_fit(
    line_graph: Build, tokenizer: bytes, length: int, size: int, rows: int, pool: str | None, message: str
) -> None:
    files = {"encoder.onnx": line_graph(size, rows), "tokenizer.json": tokenizer}
    with pytest.raises(BundleError, match=message):
        TextEncoder(length, TEXT | {"pool": pool}, files.__getitem__)


def test_encoders_name_their_engine(plain: SpeechEncoder, text: TextEncoder) -> None:
    assert (plain.engine.name, text.engine.name) == ("onnxruntime", "onnxruntime")


def test_nothing_said_has_no_rows(text: TextEncoder) -> None:
    for transcript in ("", " ", "\t\n"):
        features = text(transcript)
        assert (features.valid, features.total, features.values.any()) == (0, 0, False)
    text.close()
    assert text("").valid == 0  # and runs nothing
    with pytest.raises(EngineError, match="the engine is closed"):
        text("the")


def test_tokens_of_another_vocabulary(text: TextEncoder) -> None:
    with pytest.raises(InputError, match="'window' is no token of ids"):
        text.rows([Token("window", 0, 6)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hop_s": None}, "frontend option 'hop_s': got None, expected float"),
        ({"hop_s": "4"}, "frontend option 'hop_s': got '4', expected float"),
        ({"window_s": True}, "frontend option 'window_s': got True, expected float"),
        ({"normalisation": 3}, "frontend option 'normalisation': got 3, expected str"),
        ({"normalisation": "loud"}, "normalisation 'loud'"),
        ({"hop_s": 0.0}, "hop 0.0"),
        ({"hop_s": -0.1}, "hop -0.1"),
        ({"hop_s": 1e-9}, "hop 1e-09"),
        ({"hop_s": float("nan")}, "hop nan"),
        ({"window_s": float("inf")}, "window inf"),
        ({"window_s": 0.0}, "window 0.0"),
        ({"window_s": 1e308}, r"window 1e\+308"),
        ({"hop_s": 1e300}, r"hop 1e\+300"),
        ({"pause_db": 30}, "frontend option 'pause_db': got 30, expected float"),
        ({"pause_db": 0.0}, "pause_db 0.0, expected above 0 to 120"),
        ({"pause_db": float("nan")}, "pause_db nan"),
        ({"lowest_level_db": -26.0}, "frontend option 'highest_level_db': got None, expected float"),
        ({"lowest_level_db": -26.0, "highest_level_db": -30.0}, "levels from -26 to -30 dB, expected -60 to 0"),
        ({"lowest_level_db": -61.0, "highest_level_db": -30.0}, "levels from -61 to -30 dB"),
        ({"lowest_level_db": float("nan"), "highest_level_db": 0.0}, "levels from nan to 0 dB"),
        ({"windows": "6"}, "windows '6': expected rows in rising order, 2 at least, up to 6"),
        ({"windows": []}, r"windows \[\]: expected rows"),
        ({"windows": [2, 4]}, r"windows \[2, 4\]: expected rows"),
        ({"windows": [4, 2, 6]}, r"windows \[4, 2, 6\]: expected rows"),
        ({"windows": [True, 6]}, r"windows \[True, 6\]: expected rows"),
        ({"hop_s": 8 / 16_000}, r"expected samples \(N, 44\) for 6 rows"),
        ({"window_s": 5 / 16_000}, r"expected samples \(N, 25\) for 6 rows"),
        ({"input": None}, "got input None, expected speech or text"),
        ({"input": "video"}, "got input 'video', expected speech or text"),
        ({"input": ["speech"]}, "got input .*, expected speech or text"),
        ({"input": "text"}, "frontend option 'start': got None, expected int"),
    ],
    ids=str,
)
def test_descriptions_that_are_not_usable(speech_graph: Build, changed: Mapping[str, Any], message: str) -> None:
    files = {"encoder.onnx": speech_graph(), "statistics.safetensors": Statistics.none(4).to_bytes()}
    spec = {"kind": "onnx-encoder", "input": "speech", **SPEECH} | changed
    with pytest.raises(BundleError, match=message) as caught:
        restore_frontend(6, spec, files.__getitem__)
    assert "\n" not in str(caught.value)


def test_speech_graphs_that_do_not_fit(speech_graph: Build, text_graph: Build) -> None:
    single = (("samples", TensorProto.FLOAT, (24,)),)
    other = (("audio", TensorProto.FLOAT, ("N", 24)),)
    free = (("samples", TensorProto.FLOAT, ("N", "S")),)
    for graph, length, message in (
        (speech_graph(), 5, r"expected rows \(N, 5, dim\)"),
        (speech_graph(name="states"), 6, r"the graph gives .*states.*, expected rows \(N, 6, dim\)"),
        (speech_graph(inputs=single), 6, r"expected samples \(N, 24\)"),
        (speech_graph(inputs=other), 6, r"audio.*expected samples \(N, 24\)"),
        (speech_graph(inputs=free), 6, r"expected samples \(N, 24\)"),
        (text_graph(8), 6, r"ids.*expected samples \(N, 24\)"),
    ):
        with pytest.raises(BundleError, match=message) as caught:
            SpeechEncoder(length, SPEECH, lambda _, graph=graph: graph)
        assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="refuses the graph"):
        SpeechEncoder(6, SPEECH, lambda _: b"no graph")


def test_text_graphs_that_do_not_fit(text_graph: Build, speech_graph: Build, tokenizer: bytes) -> None:
    for graph, length, message in (
        (text_graph(6), 3, r"expected rows \(N, 3, dim\)"),
        (speech_graph(), 6, r"samples.*expected ids \(N, 8\)"),
        (text_graph(5, TensorProto.FLOAT), 3, r"float32.*expected ids \(N, 5\)"),
    ):
        with pytest.raises(BundleError, match=message):
            TextEncoder(length, TEXT, {"encoder.onnx": graph, "tokenizer.json": tokenizer}.__getitem__)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]"])
def test_tokenizers_that_are_not_usable(text_graph: Build, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json is not usable") as caught:
        TextEncoder(3, TEXT, {"encoder.onnx": text_graph(), "tokenizer.json": content}.__getitem__)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", Statistics.none(5).to_bytes(), save({"mean": np.zeros(4, np.float32), "std": np.zeros(4, np.float32)})],
)
def test_statistics_that_are_not_usable(speech_graph: Build, content: bytes) -> None:
    files = {"encoder.onnx": speech_graph(), "statistics.safetensors": content}
    with pytest.raises(BundleError, match=r"statistics\.safetensors is not usable"):
        restore_frontend(6, {"kind": "onnx-encoder", "input": "speech", **SPEECH}, files.__getitem__)


def looking_up(rows: int) -> bytes:
    """Give, for 5 ids, the rows of the inner three in a table of so many rows, 2 wide."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["all"]),
        helper.make_node("Slice", ["all", "one", "four", "one"], ["rows"]),
    ]
    weights = {"table": np.ones((rows, 2), np.float32), "one": np.array([1]), "four": np.array([4])}
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", 5])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 3, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(made.SerializeToString())


def word_level(vocabulary: Mapping[str, int], unknown: str = "b") -> bytes:
    model = {"type": "WordLevel", "vocab": dict(vocabulary), "unk_token": unknown}
    return json.dumps({"version": "1.0", "model": model}).encode()


def looked_up(rows: int, tokenizer: bytes, **changed: Any) -> TextEncoder:
    return TextEncoder(
        3, {**TEXT, **changed}, {"encoder.onnx": looking_up(rows), "tokenizer.json": tokenizer}.__getitem__
    )


def test_ids_that_the_graph_knows(tokenizer: bytes) -> None:
    frontend = looked_up(10, tokenizer)
    assert frontend("the doors!").valid == 3
    looked_up(5, word_level({"a": 4, "b": 0}))  # with gaps


@pytest.mark.parametrize(
    ("rows", "vocabulary", "changed", "message"),
    [
        (9, None, {}, r"gives '##ing' the id 9, the graph knows 0 to 8"),
        (5, {"a": 4_294_967_295, "b": 0}, {}, r"gives 'a' the id 4294967295, the graph knows 0 to 4"),
        (5, {"a": 5, "b": 0}, {}, r"gives 'a' the id 5"),
        (5, {"a\x1b[2J": 5, "b": 0}, {}, r"gives 'a\\x1b\[2J' the id 5"),
        (10, None, {"end": 10}, "end is 10, the graph knows 0 to 9"),
        (10, None, {"start": -1}, "start is -1"),
        (10, None, {"padding": 1 << 40}, "padding is 1099511627776"),
        (10, {"a": 0}, {}, r"tokenizer\.json is not usable: .*Missing \[UNK\]"),
    ],
)
def test_ids_that_the_graph_does_not_know(
    tokenizer: bytes, rows: int, vocabulary: Mapping[str, int] | None, changed: Mapping[str, Any], message: str
) -> None:
    words = tokenizer if vocabulary is None else word_level(vocabulary)
    with pytest.raises(BundleError, match=message) as caught:
        looked_up(rows, words, **changed)
    assert "\n" not in str(caught.value)


def test_ids_beyond_32_bits_without_a_table(text_graph: Build) -> None:
    files = {"encoder.onnx": text_graph(), "tokenizer.json": word_level({"a": (1 << 32) - 1, "b": 0})}
    with pytest.raises(BundleError, match="the id 4294967295, the graph knows 0 to 2147483647"):
        TextEncoder(3, TEXT, files.__getitem__)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_given_ids_that_the_graph_does_not_know(tokenizer: bytes, wrong: int) -> None:
    with pytest.raises(InputError, match=r"ids: got .* to .*, expected 0 to 9"):
        looked_up(10, tokenizer).extract(np.array([2, wrong, 3], np.int32))


def test_a_bundle_s_name_is_said(tokenizer: bytes, tmp_path: Path) -> None:
    entry = InputEntry(3, 2, {"kind": "onnx-encoder", "input": "text", **TEXT})
    manifest = Manifest("b", "1", ModelEntry("f", "p", {}), ("a", "b"), {"text": entry}, {"portable": "m.onnx"})
    files = {"m.onnx": b"", "frontends/text/encoder.onnx": looking_up(9), "frontends/text/tokenizer.json": tokenizer}
    bundle = write_bundle(tmp_path / "named.edgeser", manifest, files)
    with pytest.raises(
        BundleError, match=r"named\.edgeser: text: onnx-encoder: tokenizer\.json gives '##ing' the id 9"
    ):
        bundle.frontend("text")
