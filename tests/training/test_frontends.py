"""Which frontends a run opens for its modalities, and what it says when they do not go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from edgeser.corpora import Utterance
from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel, Phonemes, TextEncoder, WordVectors, write_frontend
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.frontends import open_features
from edgeser.training.options import TrainOptions

ALL = ("audio", "text", "phonemes", "sentence")
Make = Callable[..., TrainOptions]


@pytest.fixture
def options(tmp_path: Path) -> Make:
    """Make the options of a run: `(family, *modalities, **changes)`, on three words' vectors."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("door 0.1 0.2\nzzyzx 0.3 0.4\ntalk 0.5 0.6\n")

    def make(family: str, *modalities: str, **changes: Any) -> TrainOptions:
        given = {"modalities": modalities, "word_vectors": vectors, **changes}
        return TrainOptions("manifest:none.csv", tmp_path, family, **given)

    return make


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Text encoders of 3 ids each: with a row for the one token between, and with one for the whole line."""
    cut = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    cut.pre_tokenizer = pre_tokenizers.Whitespace()
    folders = {}
    for name, length, more in (("line", 1, {"pool": "start"}), ("words", 2, {})):
        nodes = [
            helper.make_node("ReduceSum", ["ids", "one"], ["sum"], keepdims=1),
            helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["float", "one"], ["row"]),
            helper.make_node("Concat", ["row"] * length, ["rows"], axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "encoder",
            [helper.make_tensor_value_info("ids", TensorProto.INT32, ("N", 4))],
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ("N", length, 1))],
            [numpy_helper.from_array(np.array([1]), "one")],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        files = {"encoder.onnx": proto.SerializeToString(), "tokenizer.json": cut.to_str().encode()}
        folders[name] = tmp_path_factory.mktemp(name)
        description = {"name": name, "start": 2, "end": 3, "padding": 0, **more}
        write_frontend(folders[name], TextEncoder(length, description, files.__getitem__))
    folders["speech"] = tmp_path_factory.mktemp("speech")
    write_frontend(folders["speech"], LogMel(40))
    return folders


def test_every_modality_has_its_frontend(options: Make, encoders: dict[str, Path]) -> None:
    given = options("multigranularity", sentence_encoder=encoders["line"], word_vectors=None)
    assert given.modalities == ALL
    features = open_features(given)
    assert tuple(features) == ALL
    audio, text, phonemes, sentence = features.values()
    assert isinstance(audio, RecordingFeatures)
    assert isinstance(audio.frontend, LogMel)
    shape = family("multigranularity").log_mel
    assert (audio.frontend.dim, audio.frontend.length, audio.frontend.hop_ms) == (shape.bins, shape.length, 12)
    assert isinstance(text, LineFeatures)
    assert isinstance(phonemes, LineFeatures)
    assert isinstance(text.frontend, WordVectors)
    assert isinstance(phonemes.frontend, Phonemes)
    assert phonemes.frontend.length == text.frontend.length == 20
    assert set(phonemes.frontend._known) <= set(text.frontend.vocabulary)
    assert isinstance(sentence, LineFeatures)
    line = Utterance("a", Path("none.wav"), transcript="hello there you")
    assert sentence.rows(line).tolist() == [[2 + 1 + 0 + 3]]  # two tokens are read, not one for the one row
    assert sentence.rows(Utterance("b", Path("none.wav"))).shape == (0, 1)


def test_phonemes_alone_know_the_words_of_the_vectors(options: Make) -> None:
    features = open_features(options("multilevel", "audio", "phonemes", bins=40))
    audio, phonemes = features["audio"].frontend, features["phonemes"].frontend
    assert isinstance(audio, LogMel)
    assert (audio.dim, audio.hop_ms) == (40, 12)
    assert isinstance(phonemes, Phonemes)
    assert list(phonemes._known) == ["door", "talk"]


HOW = "run `edgeser export-encoder MODEL --pool start -o DIR` and give --sentence-encoder DIR"


def test_what_does_not_go_together(options: Make, encoders: dict[str, Path]) -> None:
    def refused(given: TrainOptions) -> str:
        with pytest.raises(InputError) as caught:
            open_features(given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    message = refused(options("multigranularity", "sentence"))
    assert message == f"sentence: got no encoder, multigranularity takes one row for the whole line: {HOW}"
    words, speech = encoders["words"], encoders["speech"]
    message = refused(options("multigranularity", "sentence", sentence_encoder=words))
    assert message == f"{words}: gives 2 rows, expected 1 for a line: {HOW}"
    assert "got an audio frontend" in refused(options("multigranularity", "sentence", sentence_encoder=speech))
    assert "got an audio frontend" in refused(options("ks-transformer", "text", text_encoder=speech))
    assert "got a text frontend" in refused(options("ks-transformer", "audio", audio_encoder=words))
    message = refused(options("multilevel", "audio", "text", "phonemes", text_encoder=words))
    assert "a text encoder cuts words into other pieces than phonemes have, expected word vectors" in message
