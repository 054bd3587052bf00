"""BERT and RoBERTa: the real MiniLM and small random ones, against `transformers`' model and tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeser.export_tools.encoders.bert import bert_from_transformers
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError, ParityError
from edgeser.runtime.frontends import TextEncoder
from edgeser.runtime.golden import EncoderVectors, encoder_vectors, verify_frontend

Deviations = Callable[[NDArray[Any], NDArray[Any]], float]
SENTENCES = (
    "Kids are talking by the door.",
    "Dogs are sitting by the door",
    "I can't believe we won!",
    "Get out of my house, now! Naïve façade… 12,5 %",
    "no",
)
LONG = "it was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness"
SPECIAL = {"bert": ("[CLS]", "[SEP]", "[PAD]"), "roberta": ("<s>", "</s>", "<pad>")}


def hidden_states(folder: Path, sentence: str, tokens: int) -> list[NDArray[np.float32]]:
    """Every hidden state of the tokens between start and end, as `transformers` makes them."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    inputs = tokenizer(sentence, truncation=True, max_length=tokens + 2, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return [state[0, 1:-1].numpy() for state in states]


def train_tokenizer(file: Path, kind: str) -> int:
    """Train a fast tokenizer on a few lines, as the kind of model wants it; return its number of tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    start, end, padding = SPECIAL[kind]
    if kind == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=120, special_tokens=["[PAD]", "[UNK]", start, end], show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=[start, padding, end],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator([*SENTENCES, LONG], trainer)
    pair = ((end, tokenizer.token_to_id(end)), (start, tokenizer.token_to_id(start)))
    tokenizer.post_processor = (
        processors.BertProcessing(*pair) if kind == "bert" else processors.RobertaProcessing(*pair)
    )
    # As MiniLM's own file: what it was saved with must not cut or pad here.
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=9, pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    tokenizer.save(str(file))
    return int(tokenizer.get_vocab_size())


@pytest.fixture(scope="module", params=["bert", "roberta"])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, randomise: Callable[[nn.Module], None]
) -> Path:
    import transformers

    kind = str(request.param)
    folder = tmp_path_factory.mktemp(kind)
    size = train_tokenizer(folder / "tokenizer.json", kind)
    config, model = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
    }[kind]
    network = model(
        config(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=30,
            type_vocab_size=2 if kind == "bert" else 1,
            pad_token_id={"bert": 0, "roberta": 1}[kind],
        )
    )
    randomise(network)
    network.save_pretrained(folder)
    return folder


def reference(folder: Path, sentence: str, tokens: int) -> list[NDArray[np.float32]]:
    """As `hidden_states`, with the file's own truncation and padding off."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens + 2)
    ids = torch.tensor([tokenizer.encode(sentence).ids])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=ids, output_hidden_states=True).hidden_states
    return [state[0, 1:-1].numpy() for state in states]


def test_small_random_ones_are_transformers(
    small: Path, in_pytorch: Callable[..., TextEncoder], deviations: Deviations
) -> None:
    """All hidden states within 1e-4 standard deviations, from one token to more than fit."""
    frontend = in_pytorch(bert_from_transformers(small, 20), 20, "0+1+2", small)
    for sentence in (*SENTENCES, LONG):
        expected = np.concatenate(reference(small, sentence, 20), axis=1)
        features = frontend(sentence)
        assert features.valid == expected.shape[0] == min(20, features.total)
        assert deviations(features.values[: features.valid], expected) < 1e-4
        assert not features.values[features.valid :].any()
    assert frontend(LONG).total > 20


def line_of(folder: Path, sentence: str, tokens: int, pool: str) -> list[NDArray[np.float32]]:
    """The start token's row of every hidden state, or the mean over all tokens, as plain PyTorch makes them."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens + 2)
    ids = torch.tensor([tokenizer.encode(sentence).ids])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=ids, output_hidden_states=True).hidden_states
    return [(state[0, :1] if pool == "start" else state[0].mean(dim=0, keepdim=True)).numpy() for state in states]


@pytest.mark.parametrize("pool", ["start", "mean"])
def test_one_row_for_the_line_is_plain_pytorchs(
    small: Path, in_pytorch: Callable[..., TextEncoder], deviations: Deviations, pool: str
) -> None:
    """All hidden states within 1e-4 standard deviations, whatever stands behind the line."""
    encoder = bert_from_transformers(small, 20)
    encoder.pool = pool
    frontend = in_pytorch(encoder, 20, "0+1+2", small)
    assert (frontend.length, frontend.window, frontend.options()["pool"]) == (1, 20, pool)
    for sentence in (*SENTENCES, LONG):
        expected = np.concatenate(line_of(small, sentence, 20, pool), axis=1)
        features = frontend(sentence)
        assert features.valid == 1
        assert (features.total > 1) == (len(frontend.tokens(sentence)) > 20)
        assert deviations(features.values, expected) < 1e-4
    assert (frontend("").valid, frontend("").values.any()) == (0, False)


def test_an_empty_transcript_has_no_rows(small: Path, in_pytorch: Callable[..., TextEncoder]) -> None:
    frontend = in_pytorch(bert_from_transformers(small, 20), 20, "1", small)
    for nothing in ("", *([" \n"] if "roberta" not in small.name else [])):  # a byte-level vocabulary has blanks
        features = frontend(nothing)
        assert (features.valid, features.total, features.values.shape) == (0, 0, (20, 16))
        assert not features.values.any()


def test_offsets_point_into_the_transcript(small: Path, in_pytorch: Callable[..., TextEncoder]) -> None:
    frontend = in_pytorch(bert_from_transformers(small, 20), 20, "1", small)
    for sentence in (*SENTENCES, LONG):
        end = 0
        tokens = frontend.tokens(sentence)
        for token in tokens:
            assert 0 <= token.start <= token.end <= len(sentence)
            assert token.start < token.end or token.text == "Ġ"  # a blank by itself, which byte-level offsets trim
            assert token.end >= end
            end = token.end
        assert end == len(sentence.rstrip())
    spelled = [(t.text, "Kids are talking by the door."[t.start : t.end]) for t in frontend.tokens(SENTENCES[0])]
    for text, stands in spelled:
        assert text.removeprefix("##").lstrip("Ġ").lower() == stands.strip().lower()


def test_the_special_tokens_are_the_tokenizers(small: Path) -> None:
    from tokenizers import Tokenizer

    kind = "roberta" if "roberta" in small.name else "bert"
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    start, end, padding = (tokenizer.token_to_id(token) for token in SPECIAL[kind])
    assert bert_from_transformers(small, 20).describe() == {"start": start, "end": end, "padding": padding}


def test_more_tokens_than_positions_are_refused(small: Path) -> None:
    """RoBERTa's first position is the one after its padding token's id."""
    most = 26 if "roberta" in small.name else 28
    bert_from_transformers(small, most)
    with pytest.raises(InputError, match=f"--length: got {most + 1}, expected at most {most} tokens"):
        bert_from_transformers(small, most + 1)


def test_a_folder_without_a_usable_tokenizer(small: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        bert_from_transformers(tmp_path, 20)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not readable as a tokenizer"):
        bert_from_transformers(tmp_path, 20)
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.no_padding()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="puts 0 tokens around a text, expected a start and an end token"):
        bert_from_transformers(tmp_path, 20)


def test_weights_of_another_model_are_refused(small: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    save_file({"something.else": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks .* of the encoder's weights, embeddings"):
        bert_from_transformers(tmp_path, 20)


def test_roberta_exported_by_the_command(
    small: Path, by_command: Callable[..., TextEncoder], deviations: Deviations
) -> None:
    """The graph within 1e-4 standard deviations of `transformers`; MiniLM below stands for BERT."""
    if "roberta" not in small.name:
        pytest.skip("BERT's graph is proved with MiniLM")
    frontend = by_command(small, "--layer", "1")
    assert (frontend.length, frontend.dim) == (20, 16)
    for sentence in (*SENTENCES, LONG):
        assert deviations(frontend.rows(frontend.tokens(sentence)), reference(small, sentence, 20)[1]) < 1e-4


@pytest.fixture(scope="module")
def minilm(by_command: Callable[..., TextEncoder]) -> TextEncoder:
    return by_command("minilm-l6-v2", "--layer", "4+6")


def test_minilm_is_transformers(minilm: TextEncoder, packaged: Callable[[str], Path], deviations: Deviations) -> None:
    """The exported graph's layers 4 and 6 (the last) within 1e-4 standard deviations, on real sentences."""
    folder = packaged("minilm-l6-v2")
    assert (minilm.length, minilm.dim) == (20, 768)
    assert minilm.options()["licence"] == "all-MiniLM-L6-v2, Apache-2.0"
    for sentence in (*SENTENCES, LONG):
        states = hidden_states(folder, sentence, 20)
        rows = minilm.rows(minilm.tokens(sentence))
        assert deviations(rows[:, :384], states[4]) < 1e-4
        assert deviations(rows[:, 384:], states[6]) < 1e-4


@pytest.fixture(scope="module")
def minilm_line(by_command: Callable[..., TextEncoder]) -> TextEncoder:
    return by_command("minilm-l6-v2", "--pool", "mean")


def test_minilm_of_a_line_is_the_mean_over_its_tokens(
    minilm_line: TextEncoder, packaged: Callable[[str], Path], deviations: Deviations
) -> None:
    """The exported graph against plain PyTorch, on real sentences and on more tokens than the 64 that it reads."""
    folder = packaged("minilm-l6-v2")
    assert (minilm_line.length, minilm_line.window, minilm_line.dim) == (1, 64, 384)
    for sentence in (*SENTENCES, LONG, " ".join([LONG] * 4)):
        features = minilm_line(sentence)
        assert deviations(features.values, line_of(folder, sentence, 64, "mean")[-1]) < 1e-4
    assert features.total > 1
    near, far = (minilm_line(s).values[0] for s in ("A dog sits at the door", "I can't believe we won!"))
    line = minilm_line(SENTENCES[1]).values[0]
    alike, unlike = (float(line @ o / np.linalg.norm(line) / np.linalg.norm(o)) for o in (near, far))
    assert (alike > 0.6, unlike < 0.3) == (True, True)  # it says what the line is about


def test_golden_vectors_of_a_line(minilm_line: TextEncoder) -> None:
    vectors = encoder_vectors(minilm_line, SENTENCES[0])
    stored = EncoderVectors.from_tensors(**{"given" if n == "input" else n: v for n, v in vectors.to_tensors().items()})
    assert stored.rows.shape == (1, 384)
    assert verify_frontend(minilm_line, stored, "fp32") < 1e-3
    wrong = EncoderVectors(stored.input, np.roll(stored.rows, 1, axis=1))
    with pytest.raises(ParityError, match="golden rows differ by"):
        verify_frontend(minilm_line, wrong, "fp32")


def test_minilm_tokens(minilm: TextEncoder) -> None:
    sentence = "She\u2019s UNBELIEVABLY naïve!"
    tokens = minilm.tokens(sentence)
    assert [t.text for t in tokens] == ["she", "\u2019", "s", "un", "##bel", "##ie", "##va", "##bly", "naive", "!"]
    stands = ["She", "\u2019", "s", "UN", "BEL", "IE", "VA", "BLY", "naïve", "!"]
    assert [sentence[t.start : t.end] for t in tokens] == stands
    assert [t.text for t in minilm.tokens("☃ door")] == ["[UNK]", "door"]
    features = minilm(LONG)
    assert (features.valid, features.total) == (20, len(minilm.tokens(LONG)))
    np.testing.assert_array_equal(features.values, minilm.rows(minilm.tokens(LONG)))
    for nothing in ("", " \t\n"):
        assert minilm(nothing).valid == 0


def test_minilms_file_pads_and_cuts_and_its_frontend_does_not(minilm: TextEncoder) -> None:
    """all-MiniLM-L6-v2's tokenizer.json keeps both on, and tokenizers 0.23 obeys it: every text has 128 tokens."""
    from tokenizers import Tokenizer

    stored = Tokenizer.from_str(minilm.files()["tokenizer.json"].decode())
    assert stored.padding["length"] == stored.truncation["max_length"] == 128
    line = "the door " * 100
    assert len(stored.encode("How dare you!").ids) == len(stored.encode(line).ids) == 128
    assert [token.text for token in minilm.tokens("How dare you!")] == ["how", "dare", "you", "!"]
    assert len(minilm.tokens(line)) == 200


def test_the_name_of_a_special_token_in_a_transcript_is_text(minilm: TextEncoder) -> None:
    """tokenizers 0.23 makes the special token of it, unless it is told not to."""
    from tokenizers import Tokenizer

    line = "no [SEP] yes[MASK]"
    stored = Tokenizer.from_str(minilm.files()["tokenizer.json"].decode())
    assert stored.encode(line, add_special_tokens=False).tokens[:4] == ["no", "[SEP]", "yes", "[MASK]"]
    tokens = minilm.tokens(line)
    assert [token.text for token in tokens] == ["no", "[", "sep", "]", "yes", "[", "mask", "]"]
    assert [line[token.start : token.end] for token in tokens] == ["no", "[", "SEP", "]", "yes", "[", "MASK", "]"]


def test_minilm_in_int8(minilm: TextEncoder) -> None:
    """A quarter of the size; rows correlate above 0.99 with the full ones and deviate by 0.05 on average."""
    graph = minilm.files()["encoder.onnx"]
    small = store_weights(onnx.load_from_string(graph), "int8").SerializeToString()
    assert len(small) < len(graph) * 0.26
    quantized = TextEncoder(20, minilm._description, {**minilm.files(), "encoder.onnx": small}.__getitem__, open_engine)
    for sentence in SENTENCES:
        full, got = minilm.rows(minilm.tokens(sentence)), quantized.rows(quantized.tokens(sentence))
        assert np.abs(got - full).mean() < 0.05 * full.std()
        assert np.corrcoef(got.ravel(), full.ravel())[0, 1] > 0.99
