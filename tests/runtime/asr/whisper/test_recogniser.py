"""Whisper tiny.en as a bundle's own recogniser: alone, on the model's encoder, in a Runtime, a stream and a scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeser.runtime.asr import AsrError, RecognizedWord, Transcript, open_asr
from edgeser.runtime.asr.whisper import WhisperAsr
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.errors import BundleError, EngineError, InputError, ParityError
from edgeser.runtime.frontends import SpeechEncoder, read_frontend
from edgeser.runtime.golden import GoldenVectors, GoldenWords, verify_recogniser
from edgeser.runtime.manifest import RECOGNISER, Manifest
from edgeser.runtime.recognizer import Runtime, default_bundle
from edgeser.runtime.scoring import Setup, open_scorer
from edgeser.runtime.streams import Event, StreamOptions, Words
from edgeser.runtime.tensors import from_safetensors, to_safetensors

SAID = [
    "dogs are sitting by the door",
    "dogs are sitting by the door",
    "kids are talking by the door",
    "kids are talking by the door",
]
DESCRIPTION: dict[str, Any] = {
    "architecture": "whisper",
    "rows": 460,
    "language": "en",
    "no_speech_penalty": 1.5,
    "min_score": -0.93,
}
ROWS_OF_20_MS: dict[str, Any] = {"hop_s": 0.02, "window_s": 0.02, "normalisation": "none", "windows": [100, 200, 460]}


def plain(words: str) -> str:
    return "".join(character for character in words.lower() if character.isalpha() or character == " ")


@pytest.fixture(scope="session")
def both(exported: tuple[Path, Path]) -> SpeechEncoder:
    """Tiny.en's encoder with layer 3 for a model, and its last hidden state for a recogniser."""
    frontend = read_frontend(exported[0])
    assert isinstance(frontend, SpeechEncoder)
    return frontend


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    """The default bundle, whose recogniser has an encoder of its own."""
    return Bundle.open(default_bundle())


@pytest.fixture(scope="session")
def whole(shipped: Bundle) -> Mapping[str, bytes]:
    """Its recogniser's files."""
    names = [name for name in shipped.manifest.files if name.startswith(RECOGNISER)]
    return {name.removeprefix(RECOGNISER): shipped.read(name) for name in names}


def opened(description: Mapping[str, Any], files: Mapping[str, bytes], audio: Any = None) -> WhisperAsr:
    from edgeser.runtime.engines import open_engine

    return WhisperAsr(description, files.__getitem__, open_engine, audio)


@pytest.fixture(scope="session")
def alone(shipped: Bundle, whole: Mapping[str, bytes]) -> Iterator[WhisperAsr]:
    assert shipped.manifest.recogniser is not None
    with opened(shipped.manifest.recogniser, whole) as asr:
        yield asr


@pytest.fixture(scope="session")
def hearing() -> Iterator[Runtime]:
    with Runtime.load(engine="onnxruntime") as runtime:
        yield runtime


@pytest.fixture(scope="session")
def conversation(clips: list[Path]) -> Samples:
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([part for clip in clips for part in (load_audio(clip), quiet)])


def test_the_words_of_the_clips_with_their_times(alone: WhisperAsr, clips: list[Path]) -> None:
    for clip, said in zip(clips, SAID, strict=True):
        samples = load_audio(clip)
        transcript = alone.hear(samples)
        assert plain(transcript.text) == said
        assert not transcript.is_doubtful
        times = [second for word in transcript.words for second in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert 0.3 < times[0] < times[-1] < samples.shape[0] / SAMPLE_RATE
        assert all(0.3 < word.confidence <= 1 for word in transcript.words)
        assert alone.transcribe(samples) == transcript.words


def test_a_session_hears_however_it_is_cut(alone: WhisperAsr, speech: Samples) -> None:
    for size in (1, 3):
        session = alone.start()
        for piece in np.array_split(speech, size):
            session.accept(piece)
        assert session.finish() == alone.transcribe(speech)


def test_longer_than_the_window(alone: WhisperAsr, conversation: Samples) -> None:
    """Every word once, though windows end inside sentences: 18.6 s are three windows at least."""
    for lead in (0, SAMPLE_RATE // 2, SAMPLE_RATE):
        audio = np.concatenate([np.zeros(lead, np.float32), conversation])
        words = alone.hear(audio).words
        assert plain(" ".join(word.text for word in words)) == " ".join(SAID)
        assert [word.start_s for word in words] == sorted(word.start_s for word in words)
        assert words[-1].end_s <= audio.shape[0] / SAMPLE_RATE


def test_nothing_to_hear(alone: WhisperAsr) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 100, 400, 16_000, 160_000):
        assert alone.hear(np.zeros(size, np.float32)).words == ()
        assert alone.hear(0.02 * rng.standard_normal(size).astype(np.float32)).words == ()


def test_the_model_s_encoder_is_heard_and_runs_once(
    files: Mapping[str, bytes], both: SpeechEncoder, alone: WhisperAsr, speech: Samples
) -> None:
    features = both(speech)
    assert features.hidden is not None
    assert features.hidden.shape == (200, 384)  # 3.6 s: the window of 200 rows, its padding too
    with opened(DESCRIPTION, files, both) as asr:
        assert asr.hear(speech, features.hidden) == asr.hear(speech)
        words = asr.hear(speech).words
    assert [word.text for word in words] == [word.text for word in alone.transcribe(speech)]
    runs = []
    run = both.run
    with pytest.MonkeyPatch.context() as patch, opened(DESCRIPTION, files, both) as asr:
        patch.setattr(both, "run", lambda samples: runs.append(1) or run(samples))
        asr.hear(speech, both(speech).hidden)
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "conformer"}, "got architecture 'conformer', expected whisper"),
        ({"language": None}, "option 'language': got None, expected str"),
        ({"language": "de"}, "got language 'de', this decoder knows English only"),
        ({"rows": "460"}, "option 'rows': got '460', expected int"),
        ({"rows": 400}, r"windows \[100, 200, 460\]: expected rows in rising order, 2 at least, up to 400"),
        ({"min_score": 1}, "option 'min_score': got 1, expected float"),
        ({"no_speech_penalty": -1.0}, "a penalty of -1.0, expected neither below 0"),
        ({"encoder": "own"}, "encoder 'own', expected its description"),
        ({"encoder": None}, "its decoder reads hidden 384 wide of up to 1500 rows of 20 ms, no encoder of the bundle"),
        ({"encoder": {**ROWS_OF_20_MS, "hop_s": 0.01, "window_s": 0.03}}, "gives that: got 384 wide, 10 ms"),
    ],
    ids=str,
)
def test_descriptions_that_are_not_usable(whole: Mapping[str, bytes], changed: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        opened({**DESCRIPTION, "encoder": ROWS_OF_20_MS, **changed}, whole)
    assert "\n" not in str(caught.value)


def test_an_encoder_without_a_last_state(files: Mapping[str, bytes]) -> None:
    frontend = Bundle.open(default_bundle()).frontend("audio")
    with pytest.raises(BundleError, match=r"no encoder of the bundle gives that: got None wide, 20 ms"):
        opened(DESCRIPTION, files, frontend)
    frontend.close()


def test_what_the_command_writes(
    exported: tuple[Path, Path], both: SpeechEncoder, speech: Samples, tmp_path: Path
) -> None:
    from edgeser.export_tools.export import with_recogniser

    folder = exported[1]
    assert {file.name for file in folder.iterdir()} == {"cross.onnx", "step.onnx", "tokenizer.json", "recogniser.json"}
    manifest = Bundle.open(default_bundle()).manifest
    frontends = {"audio": both}
    whole, files, words = with_recogniser(dataclasses.replace(manifest, files={}), folder, frontends, speech)
    assert words is not None
    assert plain(words.text) == SAID[0]
    np.testing.assert_array_equal(words.input, speech)
    of_tiny = {"name": "whisper-tiny.en", "licence": "Whisper tiny.en, OpenAI, MIT", "weights": "lossless"}
    assert whole.recogniser == {**DESCRIPTION, **of_tiny}
    assert set(files) == {"recogniser/cross.onnx", "recogniser/step.onnx", "recogniser/tokenizer.json"}
    with pytest.raises(InputError, match=r"words: recogniser: its decoder reads hidden 384 wide"):
        with_recogniser(manifest, folder, {}, speech)
    with pytest.raises(InputError, match=r"holds no recogniser \(recogniser\.json is missing\)"):
        with_recogniser(manifest, tmp_path, {}, speech)
    (tmp_path / "recogniser.json").write_text("[1")
    with pytest.raises(InputError, match=r"recogniser\.json: not readable as a recogniser's description"):
        with_recogniser(manifest, tmp_path, {}, speech)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "--out: got none, expected a folder for the frontend, or --recogniser and one for that"),
        (["-o", "rows", "--recogniser", "words", "--beside", "whisper-tiny.en:2"], "--recogniser: got it for"),
        (["--recogniser", "words", "--windows", "200", "100"], "--windows: got 200 100"),
    ],
    ids=["nothing", "beside", "windows"],
)
def test_a_command_that_cannot_be(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeser.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["export-encoder", "whisper-tiny.en", *words]) == 2
    assert line in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_manifest_keeps_it(shipped: Bundle, tmp_path: Path) -> None:
    assert Manifest.from_json(shipped.manifest.to_json()) == shipped.manifest
    assert {name for name in shipped.graphs() if name.startswith(RECOGNISER)} == {
        "recogniser/encoder",
        "recogniser/cross",
        "recogniser/step",
    }
    files = {name: shipped.read(name) for name in shipped.manifest.files}
    with pytest.raises(BundleError, match=r"file \['recogniser/cross\.onnx'\] without a recogniser"):
        write_bundle(tmp_path / "b.edgeser", dataclasses.replace(shipped.manifest, recogniser=None), files)
    with pytest.raises(BundleError, match=r"recogniser \{'rows': 3\}"):
        dataclasses.replace(shipped.manifest, recogniser={"rows": 3})


def test_who_hears_the_words(shipped: Bundle, hearing: Runtime, tmp_path: Path) -> None:
    assert hearing.asr.name == "whisper"
    with Runtime.load(engine="onnxruntime", asr="none") as deaf:
        assert deaf.asr.name == "none"
    files = {name: shipped.read(name) for name in shipped.manifest.files if not name.startswith(RECOGNISER)}
    golden = dataclasses.replace(GoldenVectors.from_bundle(shipped), words=None)
    silent = dataclasses.replace(shipped.manifest, recogniser=None, files={})
    path = write_bundle(tmp_path / "silent.edgeser", silent, {**files, GOLDEN: golden.to_bytes()}).path
    with pytest.raises(InputError, match=r"got whisper, which silent\.edgeser does not bring: choose another"):
        Runtime.load(path, engine="onnxruntime", asr="whisper")
    with pytest.raises(InputError, match="got whisper, which a bundle brings"):
        open_asr("whisper")


def test_golden_words(shipped: Bundle, alone: WhisperAsr, speech: Samples, tmp_path: Path) -> None:
    bundle, golden = shipped, GoldenVectors.from_bundle(shipped)
    assert golden.words is not None
    assert plain(golden.words.text).split()
    made = GoldenWords.of(alone, speech)
    assert made is not None
    assert plain(made.text) == SAID[0]
    np.testing.assert_array_equal(made.input, speech)
    verify_recogniser(alone, golden.words, "onnxruntime")
    with pytest.raises(ParityError, match=r"whisper hears 'Dogs .*' where it must hear 'Cats': this engine does not"):
        verify_recogniser(alone, GoldenWords(speech, "Cats"), "onnxruntime")
    assert GoldenWords.of(alone, np.zeros(16_000, np.float32)) is None
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for changed, message in (
        ({"recogniser.text": np.zeros(0, np.uint8)}, "no words of the recogniser, or no input"),
        ({"recogniser.text": np.array([255], np.uint8)}, "the recogniser's words are no text"),
        ({"recogniser.input": np.full(5, np.nan, np.float32)}, "no words of the recogniser, or no input"),
    ):
        tensors = to_safetensors({**from_safetensors(files[GOLDEN]), **changed})
        path = write_bundle(tmp_path / "b.edgeser", bundle.manifest, {**files, GOLDEN: tensors}).path
        with pytest.raises(BundleError, match=message):
            GoldenVectors.from_bundle(Bundle.open(path))


def test_openvino_hears_the_same_words(clips: list[Path]) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with Runtime.load(engine="openvino") as runtime:
        assert runtime.asr.name == "whisper"
        assert plain(runtime.recognize(clips[-1]).transcript) == SAID[-1]


def test_words_and_emotion_of_the_clips(hearing: Runtime, clips: list[Path]) -> None:
    for clip, said in zip(clips, SAID, strict=True):
        result = hearing.recognize(clip)
        assert plain(result.transcript) == said
        assert all(word.start_s is not None and word.confidence for word in result.words)
        assert result.timings.asr_ms > 0
        told = hearing.recognize(clip, transcript=result.transcript)
        assert told.probabilities == result.probabilities
        assert told.timings.asr_ms == 0
    assert hearing.recognize(np.zeros(16_000, np.float32), 16_000).transcript == ""


def test_a_stream_gives_the_words_of_the_whole_utterance(hearing: Runtime, conversation: Samples) -> None:
    first = listen(hearing, conversation, 1600)
    assert [plain(event.result.transcript) for event in first] == SAID
    assert {event.words for event in first} == {Words.HEARD}
    other = listen(hearing, conversation, 7777)
    for a, b in zip(first, other, strict=True):
        assert (a.result.transcript, a.result.probabilities) == (b.result.transcript, b.result.probabilities)
    for event in first:
        begin, end = (round(second * SAMPLE_RATE) for second in (event.start_s, event.end_s))
        once = hearing.recognize(conversation[begin:end], SAMPLE_RATE)
        assert (once.transcript, once.probabilities) == (event.result.transcript, event.result.probabilities)


def test_partial_words_are_drafts(hearing: Runtime, conversation: Samples) -> None:
    events = listen(hearing, conversation[: 5 * SAMPLE_RATE], 1600, partial=True, partial_every_s=0.5)
    drafts = [event for event in events if event.partial]
    assert any(plain(event.result.transcript).startswith("dogs are") for event in drafts)
    (final,) = [event for event in events if not event.partial]
    assert plain(final.result.transcript) == SAID[0]


def listen(runtime: Runtime, audio: Samples, chunk: int, **options: Any) -> list[Event]:
    with runtime.open_stream(options=StreamOptions(**options)) as stream:
        for begin in range(0, audio.shape[0], chunk):
            stream.push(audio[begin : begin + chunk], wait=True)
        stream.end()
        return list(stream)


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (Transcript(is_doubtful=True), Words.DOUBTFUL),
        (AsrError("whisper: broke"), Words.FAILED),
        (Transcript((RecognizedWord("Hello", 0.5, 0.9, 0.8),)), Words.HEARD),
        (Transcript(), Words.HEARD),
    ],
    ids=["doubtful", "failed", "heard", "nothing"],
)
def test_an_event_says_how_its_words_came_about(
    hearing: Runtime,
    conversation: Samples,
    monkeypatch: pytest.MonkeyPatch,
    heard: Transcript | AsrError,
    words: Words,
) -> None:
    def hear(samples: Samples, hidden: Any = None) -> Transcript:
        if isinstance(heard, AsrError):
            raise heard
        return heard

    monkeypatch.setattr(hearing.asr, "hear", hear)
    (event,) = listen(hearing, conversation[: 5 * SAMPLE_RATE], 1600)
    assert event.words is words
    assert event.result.is_doubtful == (words is Words.DOUBTFUL)
    assert event.result.transcript == ("" if isinstance(heard, AsrError) else heard.text)
    assert event.result.has_speech


def test_what_fails_in_an_engine_is_the_recogniser_s_error(
    alone: WhisperAsr, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("onnxruntime: failed while running: no room")

    monkeypatch.setattr(alone._decoder, "decode", fail)
    with pytest.raises(AsrError, match="whisper: onnxruntime: failed while running: no room"):
        alone.hear(speech)


def test_workers_hear_the_same_words(clips: list[Path]) -> None:
    from edgeser.runtime.scoring import find_recordings

    found: list[list[Any]] = []
    for workers in (0, 2):
        with open_scorer(Setup(default_bundle(), engine="onnxruntime"), workers) as scorer:
            assert scorer.identity.asr == "whisper"
            rows = {recording.path.name: row for recording, row in scorer.rows(find_recordings(clips))}
        found.append([(name, rows[name]["transcript"], rows[name]["label"]) for name in sorted(rows)])
    assert found[0] == found[1]
    assert [plain(transcript) for _, transcript, _ in found[0]] == SAID
