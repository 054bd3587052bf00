from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import SAMPLE_RATE, load_audio

DEMO = Path(__file__).parents[2] / "examples" / "mic_demo.py"
pytest.importorskip("rich")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_file_instead_of_a_microphone(clips: list[Path], tmp_path: Path) -> None:
    talk, session = tmp_path / "talk.wav", tmp_path / "session"
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    soundfile.write(talk, np.concatenate([load_audio(clips[2]), quiet, load_audio(clips[3]), quiet]), SAMPLE_RATE)
    done = run("--wav", talk, "--asr", "pocketsphinx", "--deadline", "60", "--record", session)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "door" in line]
    assert ["sad" in lines[0], "angry" in lines[1]] == [True, True]
    rows = [json.loads(line) for line in (session / "events.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["sad", "angry"]
    assert soundfile.info(session / "audio.wav").frames == soundfile.info(talk).frames


def test_a_microphone_hears_what_is_played(clips: list[Path], virtual_microphone: Any) -> None:
    """The demo in a process of its own, PortAudio reading a real sound server that real clips are played into."""
    command = [sys.executable, str(DEMO), "--asr", "pocketsphinx", "--deadline", "60", "--seconds", "120"]
    environment = {**os.environ, **virtual_microphone.environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None
        assert "Ctrl-C ends" in demo.stdout.readline()
        time.sleep(3)
        for clip in (clips[2], clips[3]):
            virtual_microphone.play(clip)
            time.sleep(2)
        lines = list(itertools.islice((line for line in demo.stdout if "door" in line), 2))
        demo.send_signal(signal.SIGINT)
        _, error = demo.communicate(timeout=90)
    assert demo.returncode == 130, error
    assert ["sad" in lines[0], "angry" in lines[1]] == [True, True]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    done = run("--wav", tmp_path / "nothing.wav")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no such file" in done.stderr
    done = run("--wav", DEMO, "--record", tmp_path)
    assert done.returncode == 2
