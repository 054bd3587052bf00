"""Recordings as files: one reader for all of them, in blocks, to the real end."""

from __future__ import annotations

import os
from pathlib import Path

from edgeser.runtime.decoding.base import AudioFile, Block
from edgeser.runtime.decoding.sound_file import SOUND_SUFFIXES, SoundFile
from edgeser.runtime.decoding.video import VIDEO_SUFFIXES, VideoFile, is_video
from edgeser.runtime.errors import InputError

__all__ = ["SOUND_SUFFIXES", "VIDEO_SUFFIXES", "AudioFile", "Block", "estimate_length_s", "measure_audio", "open_audio"]

_MOST_SAMPLES_A_BYTE = 64  # of lossless codings, silence aside


def open_audio(path: str | os.PathLike[str]) -> AudioFile:
    """Open a recording: what libsndfile decodes, told by its content, or the sound of a video, told by its name.

    Raises:
        InputError: The file is missing or unreadable, or holds no samples.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        return VideoFile(file) if is_video(file) else SoundFile(file)
    except OSError as error:
        if error.errno is None:
            raise  # a library that cannot be loaded: no fault of the file
        raise InputError(f"{file}: cannot be opened ({error.strerror or error})") from error


def measure_audio(path: str | os.PathLike[str]) -> tuple[float, bool]:
    """Return how long a recording really lasts, seconds, and whether it ends before its header says.

    Raises:
        InputError: The file is missing or unreadable, or holds no samples.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    with open_audio(path) as file:
        return file.length_s(), file.truncated


def estimate_length_s(path: str | os.PathLike[str]) -> float:
    """Return how long a recording lasts, seconds: as its header says where that can be, measured where not.

    Raises:
        InputError: The file is missing or unreadable, or holds no samples.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    with open_audio(path) as file:
        stated_s = file.stated_s()
        if stated_s and stated_s * file.rate <= _MOST_SAMPLES_A_BYTE * Path(path).stat().st_size:
            return stated_s
        return file.length_s()
