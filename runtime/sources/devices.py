"""Which devices record, and which of them is meant."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeser.runtime.errors import InputError, MissingDependencyError, SourceError

_ALONE_S = 3.0
_CARD = re.compile(r"\s*\(hw:\d+,\d+\)$")  # a device that is put back may get another number
_portaudio = threading.Lock()


@dataclass(frozen=True)
class InputDevice:
    """A device that records: PortAudio's number for it, its name, its channels, and its own rate in Hz."""

    index: int
    name: str
    channels: int
    rate: int

    def __str__(self) -> str:
        return f"{self.index}: {self.name}"


def input_devices() -> tuple[InputDevice, ...]:
    """List the devices that record.

    Raises:
        MissingDependencyError: PyAudio is not installed.
        SourceError: The sound system does not start.
    """
    with alone():
        audio = start_portaudio()
        try:
            return devices_of(audio)
        finally:
            audio.terminate()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold PortAudio, which two threads must not start or stop at once; go on after 3 s if another one hangs in it."""
    held = _portaudio.acquire(timeout=_ALONE_S)
    try:
        yield
    finally:
        if held:
            _portaudio.release()


def start_portaudio() -> Any:
    """Return a new `pyaudio.PyAudio`; it lists the devices that are there now, if no other one is in use."""
    try:
        import pyaudio
    except ImportError as error:
        raise MissingDependencyError("pyaudio", "mic", "recording from a microphone") from error
    try:
        return pyaudio.PyAudio()
    except OSError as error:
        raise SourceError(f"microphone: the sound system does not start ({error}): check ALSA or PulseAudio") from error


def devices_of(audio: Any) -> tuple[InputDevice, ...]:
    """List the input devices that a `pyaudio.PyAudio` knows."""
    found = (audio.get_device_info_by_index(index) for index in range(audio.get_device_count()))
    return tuple(_device(info) for info in found if info["maxInputChannels"] > 0)


def choose(audio: Any, wanted: int | str | None) -> InputDevice:
    """Find a device by its number or a part of its name; None is the system's default.

    Raises:
        InputError: There is none, or several match.
    """
    devices = devices_of(audio)
    if not devices:
        raise InputError("microphone: no device records here: connect one, or use a file or standard input")
    if wanted is None:
        try:
            return _device(audio.get_default_input_device_info())
        except OSError:
            return devices[0]
    if isinstance(wanted, int) or wanted.isdecimal():
        wanted = int(wanted)
        found = [device for device in devices if device.index == wanted]
    else:
        part = wanted.casefold()
        found = [device for device in devices if device.name.casefold() == part]
        found = found or [device for device in devices if part in device.name.casefold()]
    if len(found) == 1:
        return found[0]
    what = "no such device" if not found else f"{len(found)} devices match"
    raise InputError(f"microphone: got {wanted!r}, {what}: take one of {_listed(found or devices)}")


def choose_again(audio: Any, before: InputDevice) -> InputDevice:
    """Find a device that was lost: by its name, without the card's number; of several, the one with its old number.

    Raises:
        InputError: It is not there.
    """
    same = [device for device in devices_of(audio) if _bare(device.name) == _bare(before.name)]
    if not same:
        raise InputError(f"microphone: {before.name} is not there")
    return min(same, key=lambda device: device.index != before.index)


def _device(info: dict[str, Any]) -> InputDevice:
    return InputDevice(
        int(info["index"]), str(info["name"]), int(info["maxInputChannels"]), round(info["defaultSampleRate"])
    )


def _bare(name: str) -> str:
    return _CARD.sub("", name)


def _listed(devices: Sequence[InputDevice]) -> str:
    return ", ".join(str(device) for device in devices)
