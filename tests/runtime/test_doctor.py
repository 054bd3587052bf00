from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.bundle import Bundle
from edgeser.runtime.doctor import Check, examine
from edgeser.runtime.golden import TOLERANCE, EncoderVectors, GoldenVectors
from edgeser.runtime.recognizer import Runtime, default_bundle

CHOSEN = "; `auto` chooses it"


def checks(bundle: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(bundle)}


def chosen(found: Mapping[str, Check]) -> list[str]:
    return [name for name, check in found.items() if check.detail.endswith(CHOSEN)]


@pytest.mark.usefixtures("openvino")
def test_every_engine_and_encoder_that_is_proved(proved: Path) -> None:
    found = checks(proved)
    for name in ("engine openvino", "engine onnxruntime", "openvino", "onnxruntime"):
        assert found[name].good is True
    assert chosen(found) == ["engine openvino"]
    for name in ("audio", "text"):
        frontend = found[f"frontend {name}"]
        assert frontend.good is True
        assert re.fullmatch(
            r"onnx-encoder, golden rows: openvino within \d\.\de-0[24], onnxruntime within \d\.\de-04", frontend.detail
        )


@pytest.mark.usefixtures("openvino")
def test_encoders_without_vectors_are_run_and_leave_openvino_unproved(rebundle: Callable[..., Path]) -> None:
    path = rebundle(encoders={})
    found = checks(path)
    assert found["frontend audio"].detail == "onnx-encoder, 50 of 460 rows from a sample"
    assert found["frontend text"].detail == "onnx-encoder, 1 of 20 rows from a sample"
    for name in ("engine openvino", "engine onnxruntime"):
        assert found[name].good is True
        assert "none for the encoders of audio and text" in found[name].detail
    assert chosen(found) == ["engine onnxruntime"]
    with Runtime.load(path, asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"


@pytest.mark.parametrize("what", ["logits", "rows"])
def test_engines_that_compute_something_else_fail(
    what: str, rebundle: Callable[..., Path], vectors: Mapping[str, EncoderVectors]
) -> None:
    original = Bundle.open(default_bundle())
    logits = GoldenVectors.from_bundle(original).logits + np.float32(2 * TOLERANCE[original.manifest.precision])
    wrong = dataclasses.replace(vectors["audio"], rows=np.roll(vectors["audio"].rows, 1, axis=0))
    found = checks(rebundle(**{"logits": {"logits": logits}, "rows": {"encoders": {**vectors, "audio": wrong}}}[what]))
    engines = [check for name, check in found.items() if name.startswith("engine ")]
    assert engines
    for check in engines:
        assert check.good is False
        assert f"golden {'vectors' if what == 'logits' else 'rows'} differ by" in check.detail
    assert chosen(found) == []


def test_openvino_that_is_not_installed_is_no_failure(proved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("edgeser.runtime.doctor._version", lambda name: None if name == "openvino" else "1")
    found = checks(proved)
    assert found["openvino"].good is None
    assert found["openvino"].detail == "not installed (faster on CPUs: edgeser[openvino])"
    assert "engine openvino" not in found
    assert chosen(found) == ["engine onnxruntime"]
    assert re.fullmatch(r"onnx-encoder, golden rows: onnxruntime within \S+", found["frontend audio"].detail)


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_openvino_that_does_not_start_fails_and_is_not_chosen(
    proved: Path, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(f"raise {error}('cut short')")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = checks(proved)
    assert found["engine openvino"].good is False
    assert (
        "is installed but does not start: cut short: install it again, or remove it" in found["engine openvino"].detail
    )
    assert chosen(found) == ["engine onnxruntime"]
