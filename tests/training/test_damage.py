"""Damaged and half-made files of a run: refused by name with what to do, or made again; what a bad command leaves."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgeser.cli.main import main
from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime import files
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.frontends import LogMel
from edgeser.training.checkpoint import HashedCheckpoints
from edgeser.training.evaluation import cross_validation
from edgeser.training.features import RecordingFeatures
from edgeser.training.module import EmotionModule
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe
from edgeser.training.run_folder import read_run
from edgeser.training.train import train
from edgeser.training.trained import TrainedModel

RECIPE = Recipe(epochs=2, batch_size=4)
LITTLE = ["--epochs", "1", "--folds", "1", "--threads", "1"]


def options(corpus: str, out: Path, **changes: object) -> TrainOptions:
    return dataclasses.replace(TrainOptions(corpus, out, recipe=RECIPE, folds=("1",)), **changes)  # type: ignore[arg-type]


@pytest.fixture
def trained(corpus: str, tmp_path: Path) -> Path:
    train(options(corpus, tmp_path / "run"))
    return tmp_path / "run"


def test_a_checkpoint_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    file, storage = tmp_path / "fold" / "last.ckpt", HashedCheckpoints()
    state = {"epoch": 3, "state_dict": {"w": torch.arange(500.0)}}
    storage.save_checkpoint(state, file)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    loaded = storage.load_checkpoint(file, weights_only=True)
    assert loaded["epoch"] == 3
    torch.testing.assert_close(loaded["state_dict"]["w"], state["state_dict"]["w"])  # type: ignore[index]
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    torch.testing.assert_close(torch.load(file, weights_only=True)["state_dict"]["w"], torch.arange(500.0))
    places = {0, *range(len(whole) - 94, len(whole)), *rng.integers(0, len(whole), 200).tolist()}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged.*delete it"):
            storage.load_checkpoint(file, weights_only=True)
    for size in (0, 1, 92, 93, len(whole) // 2, len(whole) - 94, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match="the checkpoint is damaged"):
            storage.load_checkpoint(file, weights_only=True)


def test_a_checkpoint_of_an_older_version_goes_on_unless_its_zip_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"w": torch.arange(500.0)}, file)
    assert HashedCheckpoints().load_checkpoint(file, weights_only=True)["w"][499] == 499.0
    whole = file.read_bytes()
    place = whole.index(np.arange(200.0, 210.0, dtype=np.float32).tobytes())
    file.write_bytes(whole[:place] + b"\0\0\0\1" + whole[place + 4 :])
    with pytest.raises(InputError, match="the checkpoint is damaged"):
        HashedCheckpoints().load_checkpoint(file, weights_only=True)


def test_a_damaged_checkpoint_stops_a_resumption_and_stays(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = EmotionModule.training_step

    def interrupted(self: EmotionModule, *args: object) -> object:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(EmotionModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(options(corpus, tmp_path / "run"))
    checkpoint = tmp_path / "run" / "fold-1" / "last.ckpt"
    damaged = bytearray(checkpoint.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    checkpoint.write_bytes(damaged)
    with pytest.raises(InputError, match=r"fold-1/last\.ckpt: the checkpoint is damaged"):
        train(options(corpus, tmp_path / "run"))
    checkpoint.unlink()
    train(options(corpus, tmp_path / "run"))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"{", b"[]", b"[" * 100_000, b'{"options": 3}', b'{"left_out": [3]}']
)
def test_a_damaged_description_of_a_run_is_named(
    content: bytes, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run" / "run.json"
    file.parent.mkdir()
    file.write_bytes(content)
    assert main(["train", "--corpus", corpus, "--out", str(file.parent)]) == 2
    assert main(["evaluate", str(file.parent)]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert str(file) in line or "holds no fold with predictions" in line
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


def test_a_damaged_model_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fold = trained / "fold-1"
    kept = {path: path.read_bytes() for path in fold.rglob("*") if path.is_file() and path.name != "last.ckpt"}
    assert {path.name for path in kept} >= {"model.json", "model.safetensors", "frontend.json", "predictions.csv"}
    rng = np.random.default_rng(1)
    for path, content in kept.items():
        for damage in ("flip", "cut", "empty"):
            broken = bytearray(content if damage == "flip" else content[: len(content) // 2 if damage == "cut" else 0])
            if damage == "flip" and path.suffix != ".safetensors":
                broken[0] ^= 0x80  # of a text, what cannot be told from another text is not damage
            elif damage == "flip":
                broken[int(rng.integers(len(broken)))] ^= 4
            path.write_bytes(broken)
            with pytest.raises(EdgeSerError) as raised:
                cross_validation(trained) if path.name == "predictions.csv" else TrainedModel.load(fold)
            assert path.name in str(raised.value) or "trained model is damaged" in str(raised.value), raised.value
            assert "\n" not in str(raised.value)
        path.write_bytes(content)
    TrainedModel.load(fold)


def test_a_damaged_feature_is_made_again(clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    utterance, frontend = Utterance("a", clip), LogMel(40)
    expected = RecordingFeatures(frontend, tmp_path).rows(utterance)
    (file,) = tmp_path.rglob("*.npy")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", whole[:-1], whole[: len(whole) // 2], bytes(flipped), b"\x93NUMPY", bytes(len(whole))):
        file.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(RecordingFeatures(frontend, tmp_path).rows(utterance), expected)
        assert f"{file}: damaged, its features are computed again" in caplog.text
        assert file.read_bytes() == whole


BAD = {
    "preset": ["--preset", "compct"],
    "set": ["--set", "nonsense=3"],
    "set value": ["--set", "layers=many"],
    "family": ["--family", "nonsense"],
    "modalities": ["--modalities", "video"],
    "audio encoder": ["--audio-encoder", "gone"],
    "text encoder": ["--text-encoder", "gone"],
    "word vectors": ["--word-vectors", "gone.txt"],
    "pronunciations": ["--modalities", "text,phonemes", "--family", "ilt", "--pronunciations", "gone.txt"],
    "recipe": ["--recipe", "nonsense=3"],
    "folds": ["--folds", "9"],
    "protocol": ["--protocol", "nonsense"],
    "corpus": ["--corpus", "manifest:gone.csv"],
    "exclude": ["--exclude", "gone.txt"],
    "nodes": ["--nodes", "2"],
}


@pytest.mark.parametrize("bad", BAD)
def test_a_typo_leaves_nothing_behind_and_the_corrected_command_works(
    bad: str, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    right = ["train", "--corpus", corpus, "--out", "runs/q", *LITTLE]
    assert main([*right, *BAD[bad]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert list(tmp_path.iterdir()) == []
    if bad == "preset":
        assert main(right) == 0


@pytest.fixture
def uneven(clips: list[Path], tmp_path: Path) -> Callable[..., str]:
    """Make a corpus of 24 good utterances in two sessions and some others, `(id, audio, start_s, end_s)`."""
    emotions = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}

    def make(*others: tuple[object, ...]) -> str:
        with (tmp_path / "m.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "audio", "start_s", "end_s", "emotion", "session", "transcript"])
            for session in (1, 2):
                for number, clip in enumerate(clips * 3):
                    emotion = emotions[clip.stem.split("-")[2]]
                    writer.writerow([f"{session}-{number}", clip, 0.01 * number, "", emotion, session, "well"])
            writer.writerows([*other, "sad", 1, "well"] for other in others)
        return f"manifest:{tmp_path / 'm.csv'}"

    return make


def test_an_utterance_of_6_ms_does_not_stop_training(
    uneven: Callable[..., str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MELD's own tables list one."""
    corpus = uneven(("dia1_utt2", clip, 1.0, 1.006), ("late", clip, "nan", ""))
    arguments = ["train", "--corpus", corpus, *LITTLE]
    assert main([*arguments, "--out", str(tmp_path / "strict"), "--strict"]) == 2
    assert "dia1_utt2: lasts 6.0 ms" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()
    train(options(corpus, tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert run is not None
    assert run.left_out == {"dia1_utt2", "late"}
    model = TrainedModel.load(tmp_path / "run" / "fold-1")
    assert {"dia1_utt2", "late"} <= set(model.training["exclude"])
    assert {u.id for u in model.held_out(read_corpus(corpus))} == {f"1-{number}" for number in range(12)}
    train(options(corpus, tmp_path / "run", folds=("2",)))  # it goes on, and leaves out the same


def test_what_is_found_out_by_decoding_alone_is_left_out_too(
    uneven: Callable[..., str], tmp_path: Path, clip: Path
) -> None:
    samples, rate = soundfile.read(clip)
    samples[5] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, rate, subtype="FLOAT")
    corpus = uneven(("nan", tmp_path / "nan.wav", 0, ""))
    train(options(corpus, tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert run is not None
    assert run.left_out == {"nan"}


def test_a_run_that_has_lost_recordings_says_so(uneven: Callable[..., str], clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.flac"
    copy.write_bytes(clip.read_bytes())
    corpus = uneven(("copied", copy, 0, ""))
    train(options(corpus, tmp_path / "run"))
    copy.unlink()
    with pytest.raises(InputError, match=r"the run began with 1 utterances that cannot be used any more \(copied: "):
        train(options(corpus, tmp_path / "run", folds=("2",)))


@pytest.mark.parametrize("what", ["run", "cache"])
def test_no_room_is_found_out_before_the_work(
    what: str,
    corpus: str,
    disk: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = disk(512)
    places = {"run": tmp_path / "runs" / "q", "cache": tmp_path / "cache"} | {what: small / "new" / what}
    monkeypatch.setenv("XDG_CACHE_HOME", str(places["cache"]))
    assert main(["train", "--corpus", corpus, "--out", str(places["run"]), *LITTLE]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{places[what]}" in line
    assert "MB are free: make room" in line
    assert list(small.iterdir()) == []
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = HashedCheckpoints.save_checkpoint, []

    def full(self: HashedCheckpoints, checkpoint: dict[str, object], path: str, storage_options: object = None) -> None:
        if saved:
            monkeypatch.setattr(files, "sync_path", no_room)
        save(self, checkpoint, path, storage_options)
        saved.append(path)

    def no_room(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HashedCheckpoints, "save_checkpoint", full)
    with pytest.raises(EdgeSerError, match=r"last\.ckpt: cannot be written \(No space left on device\)"):
        train(options(corpus, tmp_path / "run"))
    fold = tmp_path / "run" / "fold-1"
    assert [path.name for path in fold.iterdir()] == ["last.ckpt"]
    assert HashedCheckpoints().load_checkpoint(fold / "last.ckpt", weights_only=True)["epoch"] == 0
    monkeypatch.undo()
    train(options(corpus, tmp_path / "run"))
    assert json.loads((fold / "model.json").read_text())["labels"]
