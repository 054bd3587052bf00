"""Fixtures of every test: real recordings, never made-up ones."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from edgeser.clips import CLIPS, example_clips
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio

if TYPE_CHECKING:  # the device's tests need none of it
    from edgeser.export_tools.parity import ParityReport
    from edgeser.runtime.bundle import Bundle
    from edgeser.training.trained import TrainedModel

# Started in the background by a shell, this process and its children would not hear the SIGINT that tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def clips() -> list[Path]:
    """Four acted sentences of RAVDESS, 16 kHz mono, 3 to 4 s each."""
    found = example_clips()
    assert len(found) == 4, f"{CLIPS}: expected four clips, found {len(found)}"
    return found


@pytest.fixture(scope="session")
def clip(clips: list[Path]) -> Path:
    return clips[0]


@pytest.fixture(scope="session")
def speech(clip: Path) -> Samples:
    """The first clip's samples, read-only."""
    samples = load_audio(clip)
    samples.flags.writeable = False
    return samples


@pytest.fixture(scope="session")
def centered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with a prior of 2, so that few clips already move the running mean."""
    return with_prior(2.0, tmp_path_factory.mktemp("centered") / "centered.edgeser")


@pytest.fixture(scope="session")
def uncentered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle, as if its model had not been trained for rows without their running mean."""
    return with_prior(None, tmp_path_factory.mktemp("uncentered") / "uncentered.edgeser")


def with_prior(prior: float | None, path: Path) -> Path:
    """Write the default bundle again with another `mean_prior`, and no confidence table."""
    import dataclasses

    from edgeser.runtime.bundle import Bundle, write_bundle
    from edgeser.runtime.recognizer import default_bundle

    bundle = Bundle.open(default_bundle())
    inputs = dict(bundle.manifest.inputs)
    inputs["audio"] = dataclasses.replace(inputs["audio"], mean_prior=prior)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    # A confidence table is that of the prior that it was measured with.
    return write_bundle(path, dataclasses.replace(bundle.manifest, inputs=inputs, confidence=None), files).path


@pytest.fixture(scope="session")
def confident(centered: Path, wide_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The centered bundle with a confidence table, as an export writes it: measured on what it says of forty clips."""
    import dataclasses

    pytest.importorskip("torch", reason="what exports is not installed")
    from edgeser.corpora import read_corpus
    from edgeser.corpora.inputs import recording_of
    from edgeser.runtime.bundle import Bundle, write_bundle
    from edgeser.runtime.confidence import COLD, RUN, Confidence
    from edgeser.runtime.recognizer import Runtime
    from edgeser.runtime.scoring import Job, Plan, do, normalized, score
    from edgeser.training.confidence import Answers, fit_curve
    from edgeser.training.evaluation import read_predictions, write_predictions

    folder = tmp_path_factory.mktemp("confident")
    utterances = read_corpus(wide_corpus)
    states = {}
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        for state, normalize in ((COLD, "none"), (RUN, "run")):
            recordings = [recording_of(u, u.transcript) for u in utterances]
            plan = Plan.of(runtime.normalization, normalize)
            shifted = normalized(plan, recordings, lambda todo: do(Job.MEAN, runtime, todo))
            said = [[*one.result.probabilities.values()] for one in score(runtime, shifted) if one.result]
            write_predictions(folder / f"{state}.csv", utterances, np.array(said), runtime.labels)
            answers = Answers.of(read_predictions(folder / f"{state}.csv"))
            states[state] = fit_curve(answers.top(), answers.right, answers.weights)
    bundle = Bundle.open(centered)
    manifest = dataclasses.replace(bundle.manifest, confidence=Confidence({"clips": len(utterances)}, states))
    files = {name: bundle.read(name) for name in manifest.files}
    return write_bundle(folder / "confident.edgeser", manifest, files).path


VOICES = (("nemo", "train", "pl"), ("tess", "test", "en"))  # corpus, role, language
EMOTIONS = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}
LINES = {
    "neutral": ("The meeting is at ten.", "It is on the table."),
    "happy": ("This is wonderful!", "I can't believe we won!"),
    "sad": ("I miss her so much.", "Everything is lost..."),
    "angry": ("How dare you!", "Get out of my house, now!"),
}


@pytest.fixture(scope="session")
def corpus(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sessions, each with the four clips and a line for each."""
    file = tmp_path_factory.mktemp("corpus") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "transcript", "emotion", "speaker", "session", "end_s"])
        for session in (1, 2):
            for clip in clips:
                emotion = EMOTIONS[clip.stem.split("-")[2]]
                # The second session hears only the first 2.5 s: another recording, as far as features go.
                end = "" if session == 1 else "2.5"
                text = LINES[emotion][session - 1]
                writer.writerow([f"{clip.stem}_{session}", clip, text, emotion, clip.stem[-2:], session, end])
    return f"manifest:{file}"


@pytest.fixture(scope="session")
def voices(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two corpora in one manifest, one to train on and one not: other stretches of the clips, without words."""
    file = tmp_path_factory.mktemp("voices") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "emotion", "speaker", "session", "corpus", "role", "language", "start_s"])
        for place, (name, role, language) in enumerate(VOICES):
            for clip in clips:
                emotion, start = EMOTIONS[clip.stem.split("-")[2]], 0.3 + 0.3 * place
                row = [f"{name}_{clip.stem}", clip, emotion, f"{name}{clip.stem[-2:]}", 0, name, role, language, start]
                writer.writerow(row)
    return f"manifest:{file}"


@pytest.fixture(scope="session")
def wide_corpus(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty utterances in two sessions: each clip from five starting points, with two lines."""
    file = tmp_path_factory.mktemp("wide") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "transcript", "emotion", "session", "start_s"])
        for session in (1, 2):
            for clip in clips:
                emotion = EMOTIONS[clip.stem.split("-")[2]]
                for start in range(5):
                    name = f"{clip.stem}_{session}_{start}"
                    writer.writerow([name, clip, LINES[emotion][session - 1], emotion, session, start * 0.3])
    return f"manifest:{file}"


@pytest.fixture(scope="session")
def own_voice(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Mapping[str, str]], str]:
    """Write a corpus of the four clips, each at five tapes' speeds: 20 recordings, `(folder, meant)`.

    `meant` says what the speaker calls an emotion: with other names than the true ones a bundle is always wrong.
    """
    import soxr

    folder = tmp_path_factory.mktemp("own_voice")
    recordings = []
    for clip in clips:
        for speed in (0.92, 0.96, 1.0, 1.04, 1.08):
            file = folder / f"{clip.stem}_{speed}.wav"
            soundfile.write(file, soxr.resample(load_audio(clip), SAMPLE_RATE * speed, SAMPLE_RATE), SAMPLE_RATE)
            recordings.append((file, EMOTIONS[clip.stem.split("-")[2]]))

    def write(place: Path, meant: Mapping[str, str]) -> str:
        manifest = place / "mine.csv"
        rows = [f"{file.stem},{file},{meant.get(emotion, emotion)}" for file, emotion in recordings]
        manifest.write_text("\n".join(["id,audio,emotion", *rows, ""]), encoding="utf-8")
        return f"manifest:{manifest}"

    return write


@pytest.fixture(scope="session")
def fresh(wide_corpus: str) -> Callable[..., TrainedModel]:
    """Make a model with random weights and real frontends: `(preset, modalities, **changes)`.

    Parity, and what quantizing changes, do not ask what a model was trained on.
    """
    import torch

    from edgeser.corpora import read_corpus
    from edgeser.corpora.inputs import load_utterance
    from edgeser.models import InputSpec, build_model
    from edgeser.runtime.frontends import LogMel, Statistics
    from edgeser.runtime.labels import FOUR_EMOTIONS
    from edgeser.training.glove import load_word_vectors
    from edgeser.training.trained import TrainedModel

    plain = LogMel(80)
    known = Statistics.of(plain.extract(load_utterance(u)) for u in read_corpus(wide_corpus)[:5])
    everything = {"audio": plain.with_statistics(known), "text": load_word_vectors(words=5000)}

    def make(preset: str, modalities: tuple[str, ...] = ("audio", "text"), **changes: object) -> TrainedModel:
        frontends = {name: everything[name] for name in modalities}
        inputs = {name: InputSpec(f.length, f.dim, f.kind) for name, f in frontends.items()}
        torch.manual_seed(0)
        model = build_model("ks-transformer", preset, inputs, 4, **changes).eval()
        return TrainedModel(model, preset, frontends, FOUR_EMOTIONS, {"corpus": wide_corpus})

    return make


@pytest.fixture(scope="session")
def exported(
    fresh: Callable[..., TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Bundle, list[ParityReport]]]:
    """Export a fresh compact model, `(modalities)`: each once, whichever test process asks first. Do not change it."""
    import fcntl

    from edgeser.export_tools.export import ExportOptions, export
    from edgeser.export_tools.parity import ParityReport
    from edgeser.runtime.bundle import Bundle

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(modalities: tuple[str, ...] = ("audio", "text")) -> tuple[Bundle, list[ParityReport]]:
        file = shared / f"exported-{'-'.join(modalities)}.edgeser"
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.is_file():
                export(fresh("compact", modalities), ExportOptions(file, "m", utterances=32))
        bundle = Bundle.open(file)
        return bundle, [ParityReport(**report) for report in bundle.manifest.provenance["parity"]]

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a file system with room for so many KiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size_kb: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here: it needs root")
        return place

    yield make
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


# An evaluation's label, the emotion of the clip that stands for it, and what annotators write.
IEMOCAP_TURNS = (
    ("ang", "angry", "Anger"),
    ("neu", "neutral", "Neutral"),
    ("hap", "happy", "Happiness"),
    ("exc", "happy", "Excited"),
    ("sad", "sad", "Sadness"),
    ("fru", "angry", "Frustration"),
    ("xxx", "neutral", "Other"),
)
# The binary file that macOS puts beside every file of a copy, here with lines that would do harm if they were read.
RESOURCE_FORK = (
    b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe\x85\n"
    b"[1.0000 - 2.0000]\tSes01F_ghost01_F000\tang\t[2.5000, 2.5000, 2.5000]\n"
    b"Ses01F_impro01_F000 [001.0000-002.0000]: ghost\n"
)


@pytest.fixture(scope="session")
def iemocap(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small copy of IEMOCAP in the release's own layout: read it, do not change it.

    Five sessions, each with an improvised and a scripted dialog. Each dialog has a turn of every label in
    `IEMOCAP_TURNS`, F and M in turn, so that every session has every label from both speakers: 50 utterances of the
    four emotions, 20 turns of others. Each wav file is another stretch of 2 s.
    """
    root = tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release"
    voices = {EMOTIONS[clip.stem.split("-")[2]]: load_audio(clip) for clip in clips}
    for session in range(1, 6):
        folder = root / f"Session{session}"
        for number, name in enumerate((f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1b")):
            turns = [f"{name}_{'FM'[(turn + number) % 2]}{turn // 2:03d}" for turn in range(len(IEMOCAP_TURNS))]
            turns[4] = f"{turns[4][:-3]}XX0"  # some real turns are numbered so
            _write_iemocap_texts(folder, name, turns)
            wavs = folder / "sentences" / "wav" / name
            wavs.mkdir(parents=True)
            for turn, (_, emotion, _) in enumerate(IEMOCAP_TURNS):
                start = round((0.4 + 0.1 * session + 0.05 * number + 0.01 * turn) * SAMPLE_RATE)
                samples = voices[emotion][start : start + 2 * SAMPLE_RATE]
                soundfile.write(wavs / f"{turns[turn]}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
                (wavs / f"._{turns[turn]}.wav").write_bytes(RESOURCE_FORK)
    return root


def _write_iemocap_texts(session: Path, dialog: str, turns: list[str]) -> None:
    """Write a dialog's labels and words as the release has them, with a macOS copy's `._` files beside them."""
    labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    words = []
    for number, (turn, (label, emotion, annotated)) in enumerate(zip(turns, IEMOCAP_TURNS, strict=True)):
        start, end = 6.29 + 2.5 * number, 8.29 + 2.5 * number
        labels += [
            f"[{start:.4f} - {end:.4f}]\t{turn}\t{label}\t[2.5000, 3.0000, 2.0000]",
            f"C-E2:\t{annotated};\t()",
            f"C-{turn[-4]}1:\t{annotated}; Surprise;\t(annoyed)",
            "A-E3:\tval 3; act 2; dom  2;\t()",
            f"A-{turn[-4]}1:\tval 3; act 2; dom  2;\t()",
            "",
        ]
        words.append(f"{turn} [{start:08.4f}-{end:08.4f}]: {LINES[emotion][number % 2]}")
        words.append(f"{turn[-4]}: [BREATHING]")
    for kind, lines in (("EmoEvaluation", labels), ("transcriptions", words)):
        file = session / "dialog" / kind / f"{dialog}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([*lines, ""]), encoding="ascii")
        file.with_name(f"._{file.name}").write_bytes(RESOURCE_FORK)
    for kind in ("Attribute", "Categorical", "Self-evaluation"):
        file = session / "dialog" / "EmoEvaluation" / kind / f"{dialog}_e2.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(f"{turn} :Fear; ()" for turn in turns), encoding="ascii")


def _load(name: str, file: Path) -> ModuleType:
    """Load a file that is in no package under a name, once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def load_benchmark() -> Callable[[Path], ModuleType]:
    """Load a script of `benchmarks`."""
    return lambda file: _load(f"benchmark_{file.stem}", file)


def _virtual_microphone() -> Any:
    """Load `tests/virtual_microphone.py`: test folders are no packages."""
    return _load("virtual_microphone", Path(__file__).parent / "virtual_microphone.py")


@pytest.fixture
def virtual_microphone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A microphone that this process hears too: a `VirtualMicrophone`."""
    pytest.importorskip("pyaudio", reason="pyaudio is not installed: pip install 'edgeser[mic]'")
    reason = _virtual_microphone().missing()
    if reason:
        pytest.skip(f"no virtual microphone: {reason}")
    with _virtual_microphone().VirtualMicrophone() as microphone:
        for name, value in microphone.environment.items():
            monkeypatch.setenv(name, value)
        yield microphone
