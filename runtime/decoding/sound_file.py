"""What libsndfile decodes: WAV and its kin, AIFF, AU, CAF, SPHERE, FLAC, Ogg and MP3."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeser.runtime.decoding.base import AudioFile, Block, BrokenOff
from edgeser.runtime.decoding.containers import survey
from edgeser.runtime.decoding.patched import PatchedFile
from edgeser.runtime.errors import InputError
from edgeser.runtime.interruptible import interruptibly

T = TypeVar("T")

SOUND_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".sph"),
)
"""Files that are looked for in folders; one that is named is told by its content."""

# Of the rest that libsndfile knows, nothing tells whether a file is whole.
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")
# Where samples have fixed places, going to one is exact; elsewhere decoders lose their state.
_CODINGS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_EXPECTED = "expected WAV, FLAC or OGG"


class SoundFile(AudioFile):
    """A file that libsndfile reads, from its start to its end.

    python-soundfile seeks after each block, where libsndfile's MP3 decoder loses its state; told that nothing can be
    sought, it reads on.

    Raises:
        InputError: Not readable, no samples, or in a container that does not tell whether it is whole.
    """

    def __init__(self, path: Path) -> None:
        self._sound: Any = None
        self._given_up = False
        self._file = path.open("rb")
        try:
            self._found = survey(self._file, os.fstat(self._file.fileno()).st_size)
            self._patched = PatchedFile(self._file, self._found.patches)
            sound = self._open(path)
            super().__init__(path, int(sound.samplerate), int(sound.channels))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._given_up:
            return  # a call still uses it, and closes it as its last user
        if self._sound is not None:
            self._sound.close()
        self._file.close()

    def skip(self, frames: int) -> None:
        import soundfile

        if self._sound.subtype not in _CODINGS:
            return super().skip(frames)
        target = min(self._position + frames, self._found.stated_frames or int(self._sound.frames))
        try:
            self._native(lambda: self._sound.seek(target))
        except soundfile.SoundFileRuntimeError:  # a FLAC that ends before
            self._sound.close()
            self._open(self.path)
            self._position = 0
            return super().skip(target)
        self._position = target
        return None

    def length_s(self) -> float:
        if self._sound.subtype in _CODINGS and self._sound.format != "FLAC":  # the survey has seen that all is there
            self.skip(int(self._sound.frames))
        return super().length_s()

    def _open(self, path: Path) -> Any:
        source: PatchedFile | int = self._patched
        if self._found.patches:
            self._file.seek(0)
        else:  # the descriptor: native all through, and names need not be UTF-8
            source = self._file.fileno()
            os.lseek(source, 0, os.SEEK_SET)
        self._sound = self._native(lambda: _opened(path, source))
        return self._sound

    def _native(self, call: Callable[[], T]) -> T:
        return interruptibly(call, self._give_up) if self._found.patches else call()

    def _give_up(self) -> None:
        self._given_up = True

    def _read(self, frames: int) -> Block:
        import soundfile

        block = np.full((frames, self.channels), np.nan, np.float32)  # what stays so was not decoded
        try:
            got = self._native(lambda: self._sound.read(out=block))
            if self._patched.error is not None:
                raise self._patched.error
        except (soundfile.SoundFileRuntimeError, OSError) as error:
            missing = np.isnan(block).any(axis=1)
            whole = int(missing.argmax()) if missing.any() else frames
            raise BrokenOff(block[:whole], _reason(error)) from error
        return np.asarray(got, np.float32)

    def _is_cut(self, heard_s: float) -> bool:
        return self._found.cut or super()._is_cut(heard_s)

    def stated_s(self) -> float | None:
        return None if self._found.stated_frames is None else self._found.stated_frames / self.rate


def _opened(path: Path, source: PatchedFile | int) -> Any:
    import soundfile  # here, so that `import edgeser` loads no audio library

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    try:
        sound = Sequential(source, closefd=False)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not readable as audio ({_reason(error)}): {_EXPECTED}") from error
    if sound.format in _FORMATS and sound.frames:
        return sound
    what = sound.format
    sound.close()
    if what in _FORMATS:
        raise InputError(f"{path}: holds no samples")
    raise InputError(f"{path}: is a {what} file, which does not tell whether it is whole: {_EXPECTED}: convert it")


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "error_string", error)).split()).removeprefix("Error : ").rstrip(".")
