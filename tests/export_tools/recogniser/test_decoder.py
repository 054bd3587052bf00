"""The decoder step by step against `transformers`' over the whole text, as modules and as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeser.export_tools.encoders.export import example_inputs, lower_encoder, placed
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.export_tools.encoders.whisper import whisper_from_transformers
from edgeser.export_tools.recogniser.decoder import CrossAttentionCache, DecoderStep
from edgeser.export_tools.recogniser.export import RecogniserOptions, export_recogniser
from edgeser.export_tools.recogniser.weights import decoder_from
from edgeser.runtime.asr.whisper import CROSS, STEP, TOKENIZER
from edgeser.runtime.asr.whisper.steps import DecoderGraphs
from edgeser.runtime.engines import ENGINES, open_engine
from edgeser.runtime.errors import InputError

ROWS, TEXT = 30, (3, 17, 39, 0, 5)


def hidden(rows: int = ROWS, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)


def expected(folder: Path, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`transformers`' logits `(T, tokens)` and cross-attention `(layers, heads, T, rows)`."""
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        answer = model.model.decoder(
            torch.tensor([TEXT]), encoder_hidden_states=torch.from_numpy(rows)[None], output_attentions=True
        )
        logits = model.proj_out(answer.last_hidden_state)[0].numpy()
    return logits, np.stack([layer[0].numpy() for layer in answer.cross_attentions])


@pytest.fixture(scope="module", params=[False, True], ids=["fixed", "open"])
def files(request: pytest.FixtureRequest, small_whisper: Path) -> Mapping[str, bytes]:
    options = RecogniserOptions(rows=ROWS, any_rows=request.param, places=len(TEXT))
    written, description = export_recogniser(small_whisper, options)
    assert set(written) == {CROSS, STEP, TOKENIZER}
    assert description == {"architecture": "whisper", "weights": "lossless", "rows": ROWS, "language": "en"}
    return written


@pytest.mark.parametrize("rows", [ROWS, 11])
def test_step_by_step_is_transformers(rows: int, files: Mapping[str, bytes], small_whisper: Path) -> None:
    """Logits within 1e-4 standard deviations, the attention of the alignment heads within 1e-5."""
    heard = hidden(rows)
    logits, attention = expected(small_whisper, heard)
    graphs = DecoderGraphs(files.__getitem__)
    steps = graphs.start(heard)
    for place, token in enumerate(TEXT):
        assert not steps.is_full
        step = steps.say(token)
        assert np.abs(step.logits - logits[place]).max() < 1e-4 * logits.std()
        heads = np.stack([attention[1, 0, place], attention[2, 1, place]])  # in the order of layers
        np.testing.assert_allclose(step.attention[:, :rows], heads, atol=1e-5)
        assert not step.attention[:, rows:].any()
    assert steps.is_full
    with pytest.raises(InputError, match="a token more than the 5 that its cache has places for"):
        steps.say(0)
    graphs.close()


def test_a_batch_is_its_utterances(files: Mapping[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    with open_engine(files[STEP]) as engine:
        sizes = {"token": 40, "position": len(TEXT), "heard": ROWS}
        feeds: dict[str, NDArray[Any]] = {
            spec.name: rng.integers(1, sizes[spec.name], 3).astype(np.int32)
            if spec.name in sizes
            else rng.normal(size=(3, *(size or ROWS for size in spec.shape[1:]))).astype(np.float32)
            for spec in engine.inputs
        }
        together = engine.run(feeds)
        for i in range(3):
            alone = engine.run({name: value[i : i + 1] for name, value in feeds.items()})
            for name, value in alone.items():
                np.testing.assert_allclose(together[name][i : i + 1], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_engine_that_runs_here_says_the_same(engine: str, small_whisper: Path) -> None:
    if engine.startswith("tensorrt"):
        pytest.skip(f"{engine} needs a GPU and a plan")
    written, _ = export_recogniser(small_whisper, RecogniserOptions(rows=ROWS, places=len(TEXT)))
    logits, _ = expected(small_whisper, hidden(11))
    graphs = DecoderGraphs(written.__getitem__, lambda graph: open_engine(graph, engine))
    steps = graphs.start(hidden(11))
    for place, token in enumerate(TEXT):
        assert np.abs(steps.say(token).logits - logits[place]).max() < 1e-3 * logits.std()
    graphs.close()


def test_int8_weights_are_near(small_whisper: Path) -> None:
    written, _ = export_recogniser(small_whisper, RecogniserOptions(rows=ROWS, places=len(TEXT), weights="int8"))
    logits, _ = expected(small_whisper, hidden())
    steps = DecoderGraphs(written.__getitem__).start(hidden())
    for place, token in enumerate(TEXT):
        assert np.abs(steps.say(token).logits - logits[place]).max() < 0.1 * logits.std()


def test_tiny_en_is_known() -> None:
    """One table serves both ends; the alignment heads are those that its folder names."""
    with placed("whisper-tiny.en") as folder:
        decoder = decoder_from(folder)
    step = DecoderStep(decoder.model, 8, decoder.alignment_heads)
    cross = CrossAttentionCache(decoder.model)
    assert step.get_buffer("table").shape == (384, 51_864)
    assert decoder.alignment_heads == ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))
    assert cross.outputs[0] == "cross_keys_0"
    assert len(cross.outputs) == 8
    assert set(decoder.doubt) == {"no_speech_penalty", "min_score"}


def test_ctranslate2s_weights_are_transformers() -> None:
    """The joined products come apart as they were put together: what CTranslate2 says, this says."""
    import ctranslate2

    with placed("whisper-tiny.en") as folder:
        decoder = decoder_from(folder)
        other = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)
    step = DecoderStep(decoder.model, 4, decoder.alignment_heads).eval()
    cross = CrossAttentionCache(decoder.model).eval()
    rows = np.random.default_rng(0).normal(size=(1, 1500, 384)).astype(np.float32)
    start = 50_257
    answer = other.generate(
        ctranslate2.StorageView.from_array(rows),
        [[start]],
        beam_size=1,
        max_length=3,
        suppress_tokens=[],
        suppress_blank=False,
        return_no_speech_prob=True,
    )[0]
    with torch.inference_mode():
        caches = cross(torch.from_numpy(rows))
        past = [torch.zeros(1, 6, 64, 4)] * 4 + [torch.zeros(1, 6, 4, 64)] * 4
        numbers = [torch.tensor([number], dtype=torch.int32) for number in (start, 0, 1500)]
        logits = step(*numbers, *past, *caches)[0]
    probability = float(logits.softmax(-1)[0, 50_361])
    assert probability == pytest.approx(answer.no_speech_prob, rel=1e-3)


def test_the_encoder_gives_both(small_whisper: Path) -> None:
    """Rows and the last hidden state of one graph are those of two."""
    graphs = {}
    for layer, both in (("1", True), ("1", False), ("last", False)):
        encoder = whisper_from_transformers(small_whisper, 50)
        encoder.choice = LayerChoice.parse(layer, encoder.layers)
        if both:
            encoder.give_hidden()
        inputs = example_inputs(encoder, 50, encoder.describe())
        with open_engine(lower_encoder(encoder, inputs).SerializeToString()) as engine:
            graphs[layer, both] = engine.run(inputs)
    assert set(graphs["1", True]) == {"rows", "hidden"}
    assert set(graphs["1", False]) == {"rows"}
    np.testing.assert_allclose(graphs["1", True]["rows"], graphs["1", False]["rows"], atol=1e-5)
    np.testing.assert_allclose(graphs["1", True]["hidden"], graphs["last", False]["rows"], atol=1e-5)


def test_what_cannot_be_exported(small_whisper: Path, tmp_path: Path) -> None:
    decoder = decoder_from(small_whisper)
    assert decoder.alignment_heads == ((2, 1), (1, 0))
    with pytest.raises(InputError, match="cache: got 13 places, expected 1 to 12"):
        export_recogniser(small_whisper, RecogniserOptions(rows=ROWS, places=13))
    with pytest.raises(InputError, match=r"alignment heads: got \(3, 0\), expected layers below 3 and heads below 2"):
        DecoderStep(decoder.model, 4, ((3, 0),))
    with pytest.raises(InputError, match="rows: got 0, expected at least 1"):
        RecogniserOptions(rows=0)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((small_whisper / name).read_bytes())
    with pytest.raises(InputError, match=r"has no tokenizer.json, expected Whisper's own"):
        export_recogniser(tmp_path, RecogniserOptions())
    with pytest.raises(InputError, match="names no alignment_heads"):
        decoder_from(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"alignment_heads": [1]}', encoding="utf-8")
    with pytest.raises(InputError, match=r"alignment_heads \[1\], expected pairs of layer and head"):
        decoder_from(tmp_path)
    (tmp_path / "generation_config.json").write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match="not readable as JSON"):
        decoder_from(tmp_path)
