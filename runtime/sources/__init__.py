"""Where audio comes from: a microphone, a file, a pipe; all of it as float32, mono, 16 kHz."""

from __future__ import annotations

from edgeser.runtime.sources.base import Source
from edgeser.runtime.sources.conversion import Chunk, Converter, Intake
from edgeser.runtime.sources.devices import InputDevice, input_devices
from edgeser.runtime.sources.file import FileSource
from edgeser.runtime.sources.microphone import Microphone
from edgeser.runtime.sources.pcm import PCM_FORMATS, PcmSource
from edgeser.runtime.sources.recorded import Recorded

__all__ = [
    "PCM_FORMATS",
    "Chunk",
    "Converter",
    "FileSource",
    "InputDevice",
    "Intake",
    "Microphone",
    "PcmSource",
    "Recorded",
    "Source",
    "input_devices",
]
