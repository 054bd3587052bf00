"""The table of what adapting buys, of the shipped bundle on real clips."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeser.corpora import read_corpus
from edgeser.runtime.adapting import Naming, Observations, adapt, clips_of, write_adapted
from edgeser.runtime.normalization import NONE, RUN
from edgeser.runtime.recognizer import Runtime, default_bundle

OwnVoice = Callable[[Path, Mapping[str, str]], str]
ADAPT = Path(__file__).parents[2] / "benchmarks" / "adapt.py"
TURNED = {"angry": "happy", "happy": "neutral", "neutral": "sad", "sad": "angry"}


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[Path], ModuleType]) -> ModuleType:
    return load_benchmark(ADAPT)


@pytest.mark.parametrize("normalize", [NONE, RUN])
def test_its_answers_are_those_of_the_bundle_that_is_written(
    normalize: str, benchmark: ModuleType, centered: Path, own_voice: OwnVoice, tmp_path: Path
) -> None:
    utterances = read_corpus([own_voice(tmp_path, TURNED)])
    shipped = default_bundle() if normalize == NONE else centered
    with Runtime.load(shipped, engine="onnxruntime", asr="none") as runtime:
        with benchmark.RememberingObserver(runtime) as observer:
            (voice,) = benchmark.voices_of(observer, utterances, runtime.labels, "corpus")
            answers = benchmark.answers(runtime, observer, voice, 3, 1, normalize)
            found = Observations(voice.draw(3, 1)[0], {})
            found = observer.centered(found) if normalize == RUN else found
            clips = clips_of(found, runtime.labels, runtime.labels)
        assert not answers.is_refused
        assert len(answers.utterances) == 8
        mine = write_adapted(runtime.bundle, adapt(runtime.bundle, clips), Naming(), tmp_path / "mine.edgeser").path
    with Runtime.load(mine, engine="onnxruntime", asr="none") as runtime:
        results = [runtime.recognize(u.audio) for u in answers.utterances]
    expected = [list(result.probabilities.values()) for result in results]
    np.testing.assert_allclose(answers.adapted, expected, atol=1e-4)


def test_the_table(own_voice: OwnVoice, tmp_path: Path) -> None:
    manifest = own_voice(tmp_path, TURNED)
    command = [sys.executable, str(ADAPT), "--corpus", manifest, "--clips", "3", "4", "--draws", "2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "left out: 1, fewer than 6 clips of an emotion" in done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    assert len(set(map(len, rows))) == 1
    count, shipped, adapted = rows[2][1:4]
    assert (count, len(rows)) == ("3", 4)
    assert float(adapted) >= 0.8
    assert float(shipped) <= 0.4
    assert f"`python {ADAPT}" in done.stdout


def test_where_nothing_can_be_measured(own_voice: OwnVoice, tmp_path: Path) -> None:
    command = [sys.executable, str(ADAPT), "--corpus", own_voice(tmp_path, {}), "--clips", "20"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "no corpus and no speaker has enough clips" in done.stderr
