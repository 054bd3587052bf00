"""The sound of video files, through PyAV: containers and codecs that libsndfile does not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.runtime.decoding.base import AudioFile, Block, BrokenOff
from edgeser.runtime.decoding.boxes import is_cut
from edgeser.runtime.errors import InputError, MissingDependencyError

VIDEO_SUFFIXES = (".3gp", ".avi", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".webm")
"""Files that are read here."""

# FFmpeg would open a playlist of other files, or of addresses, whatever its name.
_FORMATS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2"
_CUT_S = 0.5  # a track may end a few frames before or after the length its header states


def is_video(path: Path) -> bool:
    """Say whether a file's name is one of a container that `VideoFile` reads."""
    return path.suffix.lower() in VIDEO_SUFFIXES


class VideoFile(AudioFile):
    """The first audio track of a video, its channels as they are.

    Raises:
        InputError: The file is not readable, or has no sound.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._failures = _failures(path)
        self._stack = contextlib.ExitStack()
        self._ahead: Block | None = None
        self._cut = is_cut(path)
        try:
            self._container, self._track = _opened(path, self._stack)
            self._frames = _decoded(self._container, self._track)
            super().__init__(path, int(self._track.rate), int(self._track.channels))
        except self._failures as error:
            self.close()
            reason = _reason(error)
            raise InputError(f"{path}: not readable as video ({reason}): expected a whole file with sound") from error

    def close(self) -> None:
        self._stack.close()

    def length_s(self) -> float:
        """Return how long the packets that are there last, seconds; they are decoded in AVI alone, whose times err."""
        if self._container.format.name == "avi":
            return super().length_s()
        end_s, reason = 0.0, ""
        try:
            for packet in self._container.demux(self._track):
                if packet.pts is not None:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except self._failures as error:
            reason = _reason(error)
        self._position, self._ended = round(end_s * self.rate), True
        self._end(reason)
        return end_s

    def _read(self, frames: int) -> Block:
        parts = [] if self._ahead is None else [self._ahead]
        count = sum(part.shape[0] for part in parts)
        reason = ""
        try:
            while count < frames and (part := next(self._frames, None)) is not None:
                parts.append(part)
                count += part.shape[0]
        except self._failures as error:
            reason = _reason(error)
        block = np.concatenate(parts) if parts else self._nothing()
        self._ahead = block[frames:]
        if reason:
            raise BrokenOff(block, reason)
        return block[:frames]

    def _is_cut(self, heard_s: float) -> bool:
        return self._cut or super()._is_cut(heard_s + _CUT_S)

    def stated_s(self) -> float | None:
        duration, time_base = self._track.duration, self._track.time_base
        return None if duration is None or time_base is None else float(duration * time_base)


def _decoded(container: Any, track: Any) -> Iterator[Block]:
    """Yield decoded blocks, `(frames, channels)`."""
    import av

    resampler = av.AudioResampler(format="fltp")  # another type, the same rate and channels
    for coded in container.decode(track):
        for frame in resampler.resample(coded):
            yield np.asarray(frame.to_ndarray().T, np.float32)
    for frame in resampler.resample(None):
        yield np.asarray(frame.to_ndarray().T, np.float32)


def _failures(path: Path) -> tuple[type[Exception], ...]:
    """Return what the library raises for a file that it cannot read."""
    try:
        import av  # noqa: F401 - its errors alone may be there from an earlier import
        from av.error import FFmpegError
    except ImportError as error:
        raise MissingDependencyError("av", "video", f"the sound of {path.suffix.lower()} files") from error
    return FFmpegError, InputError, ValueError, OSError


def _opened(path: Path, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    """Return the container and its first audio track."""
    import av

    options = {"format_whitelist": _FORMATS}
    container = stack.enter_context(av.open(str(path), metadata_errors="replace", options=options))
    if not container.streams.audio:
        raise InputError("no audio track")
    track = container.streams.audio[0]
    if track.codec_context is None:
        raise InputError("audio in a coding that is not known")
    return container, track


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
