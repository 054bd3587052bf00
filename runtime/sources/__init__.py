"""Where audio comes from."""

from edgeser.runtime.sources.base import Source
from edgeser.runtime.sources.conversion import Converter
from edgeser.runtime.sources.devices import InputDevice, input_devices
from edgeser.runtime.sources.file import FileSource
from edgeser.runtime.sources.pcm import PcmSource

__all__ = ["Converter", "FileSource", "PcmSource", "Source"]
