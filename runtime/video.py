"""The sound of video files, through PyAV: containers and codecs that libsndfile does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError, MissingDependencyError

VIDEO_SUFFIXES = (".avi", ".m4a", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""Files that are read here."""

# FFmpeg would open a playlist of other files, or of addresses, whatever its name.
_FORMATS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2"
_CUT_S = 0.5  # a track may end a few frames before or after the length its header states


def is_video(path: Path) -> bool:
    """Say whether a file's name is one of a container that `read_video_audio` reads."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_video_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Decode the first audio track; more than two channels are mixed to one as their layout says, speech in the middle.

    Returns:
        Samples, `(samples, channels)` float32 at full scale 1.0, one or two channels, and the rate in Hz.

    Raises:
        InputError: The file is not readable, has no sound, or ends before its header says.
        MissingDependencyError: PyAV is not installed.
    """
    with _opened(path) as (av, container, track):
        resampler = av.AudioResampler(format="fltp", layout="mono" if track.channels > 2 else None)
        frames = (frame for coded in container.decode(track) for frame in resampler.resample(coded))
        parts = [frame.to_ndarray().T for frame in frames]
        parts += [frame.to_ndarray().T for frame in resampler.resample(None)] if parts else []
        samples = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)  # (samples, channels)
        rate = int(track.rate)
        stated_s = _stated_s(track.duration, track.time_base)
    if samples.size == 0:
        raise InputError(f"{path}: holds no samples")
    heard_s = samples.shape[0] / rate
    if stated_s is not None and heard_s < stated_s - _CUT_S:
        raise InputError(f"{path}: ends after {heard_s:.2f} of {stated_s:.2f} s, it was cut short: copy it again")
    return samples, rate


def video_duration_s(path: Path) -> float:
    """Read from the header how long the first audio track lasts, seconds.

    Raises:
        InputError: The file is not readable, or has no sound.
        MissingDependencyError: PyAV is not installed.
    """
    with _opened(path) as (av, container, track):
        stated_s = _stated_s(track.duration, track.time_base)
        if stated_s is None:  # Matroska states the length of the file alone
            stated_s = _stated_s(container.duration, 1 / av.time_base)
    if not stated_s or stated_s < 0:
        raise InputError(f"{path}: its header states no length")
    return stated_s


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the library, the container and its first audio track; what fails inside the block names the file."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise MissingDependencyError("av", "video", f"the sound of {path.suffix.lower()} files") from error
    try:
        with av.open(str(path), metadata_errors="replace", options={"format_whitelist": _FORMATS}) as container:
            if not container.streams.audio:
                raise InputError("no audio track")
            track = container.streams.audio[0]
            if track.codec_context is None:
                raise InputError("audio in a coding that is not known")
            yield av, container, track
    except (FFmpegError, InputError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: not readable as video ({reason}): expected a whole file with sound") from error


def _stated_s(duration: int | None, time_base: Any) -> float | None:
    return None if duration is None or time_base is None else float(duration * time_base)
