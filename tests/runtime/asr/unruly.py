"""Recognisers that fail in every way; opened in another process, which imports them by name."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from edgeser.runtime.asr import Asr, AsrSession, BufferedSession, RecognizedWord
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import MissingDependencyError

CRASH, HANG, RAISE, EXIT, SLOW = 0.1, 0.2, 0.3, 0.4, 0.5
"""The first sample decides what happens."""

BIRTHS = "UNRULY_BIRTHS"


class UnrulyAsr(Asr):
    """Hears one word, the number of samples, unless it is told to fail."""

    name = "unruly"

    def start(self) -> AsrSession:
        return BufferedSession(_decode)


def _decode(samples: Samples) -> tuple[RecognizedWord, ...]:
    first = round(float(samples[0]), 1) if samples.size else 0.0
    if first == CRASH:
        os.abort()
    if first == HANG:
        ctypes.PyDLL(None).sleep(600)  # native, and it holds the interpreter
    if first == SLOW:
        time.sleep(2.0)
    if first == RAISE:
        raise ValueError("no such phone")
    if first == EXIT:
        os._exit(3)
    heard = [str(samples.shape[0]), str(os.getpid())]
    return tuple(RecognizedWord(text, 0.0, samples.shape[0] / 16_000, 1.0) for text in heard)


def opened() -> Asr:
    """Open one, and leave a mark where `UNRULY_BIRTHS` says."""
    births = Path(os.environ[BIRTHS])
    births.write_text(births.read_text() + f"{os.getpid()}\n" if births.exists() else f"{os.getpid()}\n")
    return UnrulyAsr()


def opened_once() -> Asr:
    """Open one the first time; never again."""
    if Path(os.environ[BIRTHS]).exists():
        raise MissingDependencyError("sphinx", "asr", "recognising riddles")
    return opened()


def torch_is_loaded() -> Asr:
    """Abort where the process has imported PyTorch."""
    if "torch" in sys.modules:
        os.abort()
    return UnrulyAsr()


def run_parent(births: str) -> None:
    """Be a parent whose child hangs, holding the interpreter; wait to be killed."""
    from edgeser.runtime.asr import IsolatedAsr

    os.environ[BIRTHS] = births
    asr = IsolatedAsr(opened)
    session = asr.start()
    session.accept(np.full(8, HANG, np.float32))
    threading.Thread(target=session.finish, daemon=True).start()
    time.sleep(0.5)
    print("hangs", flush=True)
    signal.pause()
