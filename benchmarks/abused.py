"""Recordings in every container and coding that libsndfile and PyAV write, whole and damaged, for `abuse.py`."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
DAMAGES = ("whole", "cut", "no length", "half", "double")
_CUT = 0.6  # of the bytes are left
# Containers that PyAV writes, and how many of the codings that go into each are tried: all, or the first few where the
# container is another name of one before, or none that is taken.
_ALL, _FEW = 1000, 2
_CONTAINERS = {
    **dict.fromkeys(("mp4", "mov", "mkv", "avi", "webm", "3gp", "ogg", "mp3", "flac"), _ALL),
    **dict.fromkeys(("wav", "aiff", "au", "caf", "w64"), _ALL),
    **dict.fromkeys(("m4a", "m4b", "mka", "oga", "opus"), _FEW),
    **dict.fromkeys(("aac", "ac3", "mp2", "wma", "amr", "tta", "wv", "ts", "flv", "nut", "voc", "rm"), _FEW),
}
_MUXERS = {"m4b": "mp4", "m4a": "ipod", "oga": "ogg", "mkv": "matroska", "mka": "matroska", "wma": "asf"}
_MUXERS |= {"aac": "adts", "ts": "mpegts"}
_MP4 = ("mp4", "m4a", "m4b", "mov", "3gp")


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: Who wrote it, container and coding.
        damage: One of `DAMAGES`; `half` and `double` are of the stated length.
        file: Where it lies.
    """

    name: str
    damage: str
    file: Path


def make(folder: Path, samples: NDArray[np.float32]) -> Iterator[Case]:
    """Write every case of a recording, `(samples,)` at 16 kHz, below a folder."""
    folder.mkdir(parents=True)
    for name, file in [*_by_libsndfile(folder, samples), *_by_pyav(folder, samples)]:
        raw = file.read_bytes()
        yield Case(name, "whole", file)
        damaged: dict[str, bytes | None] = {"cut": raw[: int(len(raw) * _CUT)]}
        damaged |= {damage: _restated(raw, damage) for damage in DAMAGES[2:]}
        for damage, content in damaged.items():
            if content is not None and content != raw:
                path = file.with_name(f"{file.stem}-{damage.replace(' ', '-')}{file.suffix}")
                path.write_bytes(content)
                yield Case(name, damage, path)
        streamed = _streamed(name, file, samples)
        if streamed is not None:
            yield Case(name, "no length", streamed)


def _by_libsndfile(folder: Path, samples: NDArray[np.float32]) -> Iterator[tuple[str, Path]]:
    for kind in soundfile.available_formats():
        for coding in soundfile.available_subtypes(kind):
            file = folder / f"sndfile-{kind}-{coding}.{kind.lower()}"
            try:
                soundfile.write(file, samples, RATE, format=kind, subtype=coding)
                soundfile.info(file)  # some are written, and not read again by the library itself
            except (soundfile.SoundFileError, ValueError, TypeError, AssertionError):
                file.unlink(missing_ok=True)
                continue
            if file.stat().st_size:
                yield f"sndfile {kind} {coding}", file


def _by_pyav(folder: Path, samples: NDArray[np.float32]) -> Iterator[tuple[str, Path]]:
    import av

    codecs = [name for name in sorted(av.codecs_available) if _encodes(name)]
    for container, most in _CONTAINERS.items():
        files = ((codec, folder / f"av-{codec}.{container}") for codec in codecs)
        written = ((codec, file) for codec, file in files if encode(file, codec, samples))
        yield from ((f"av {container} {codec}", file) for codec, file in itertools.islice(written, most))


def _encodes(name: str) -> bool:
    from av.codec import Codec

    try:
        return Codec(name, "w").type == "audio"
    except Exception:  # whatever PyAV says of what it cannot open: it is no case of ours
        return False


def encode(file: Path, codec: str, samples: NDArray[np.float32], target: Any = None, **options: str) -> bool:
    """Write a recording with PyAV; return whether the container takes the codec, and the encoder the recording."""
    import av

    suffix = file.suffix[1:]
    rate = {"libopus": 48_000, "opus": 48_000, "libopencore_amrnb": 8_000, "vorbis": RATE}.get(codec, RATE)
    try:
        with av.open(target or str(file), "w", format=_MUXERS.get(suffix, suffix), options=options) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.layout = "stereo" if codec in ("vorbis", "opus") else "mono"
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            stream.codec_context.open()
            size = stream.codec_context.frame_size or None
            resampler = av.AudioResampler(stream.format.name, stream.layout.name, rate, frame_size=size)
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(piece))
    except Exception:  # the codec does not go into the container, as most do not
        file.unlink(missing_ok=True)
        return False
    return target is not None or (file.is_file() and file.stat().st_size > 0)


class _Pipe:
    """Takes bytes and cannot go back, like a pipe: what is written there cannot state its length at the front."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def _streamed(name: str, file: Path, samples: NDArray[np.float32]) -> Path | None:
    """Write the same into a pipe; `None` where the container has to go back."""
    if not name.startswith("av "):
        return None
    path = file.with_name(f"{file.stem}-streamed{file.suffix}")
    pipe = _Pipe(path)
    fragments = {"movflags": "frag_keyframe+empty_moov"} if file.suffix[1:] in _MP4 else {}
    done = encode(path, file.stem.removeprefix("av-"), samples, pipe, **fragments)
    pipe.close()
    if not done or not path.stat().st_size or path.read_bytes() == file.read_bytes():
        path.unlink(missing_ok=True)
        return None
    return path


def _restated(raw: bytes, damage: str) -> bytes | None:
    """Return a file that states no length, half of it or twice as much; `None` where we know of no such field."""
    found = _length_field(raw)
    if found is None:
        return None
    place, form, more, mask = found
    (field,) = struct.unpack_from(form, raw, place)
    length = (field & mask) - more
    other = {"no length": 0, "half": length // 2 // 8 * 8, "double": length * 2}[damage]
    value = (field & ~mask) | (other + more * bool(other)) & mask
    changed = bytearray(raw)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def _length_field(raw: bytes) -> tuple[int, str, int, int] | None:
    """Return offset and format of the field that states the length, what it counts beside it, and the bits it takes."""
    long, wide = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
    head = raw[:4]
    if head == b"RF64":
        return 28, "<Q", 0, wide
    if head in (b"RIFF", b"RIFX") and raw[8:12] == b"WAVE":
        return raw.index(b"data") + 4, "<I" if head == b"RIFF" else ">I", 0, long
    if head == b"FORM" and b"SSND" in raw:
        return raw.index(b"SSND") + 4, ">I", 8, long
    if head == b".snd":
        return 8, ">I", 0, long
    if head == b"caff" and b"data" in raw:
        return raw.index(b"data") + 4, ">Q", 4, wide
    if head == b"fLaC":
        return 18, ">Q", 0, 0xFFFFFFFFF
    mp3 = max(raw.find(b"Xing", 0, 200), raw.find(b"Info", 0, 200))
    if mp3 > 0 and raw[0] in b"I\xff":
        return mp3 + 8, ">I", 0, long
    if raw[4:8] == b"ftyp" and b"mdhd" in raw:
        return raw.index(b"mdhd") + 20, ">I", 0, long
    return None
