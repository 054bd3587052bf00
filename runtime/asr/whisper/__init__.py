"""Whisper as a recogniser: words from the last hidden state of an encoder that runs for the emotion anyway."""

from edgeser.runtime.asr.whisper.decoder import Decoded, WhisperDecoder
from edgeser.runtime.asr.whisper.files import CROSS, STEP, TOKENIZER
from edgeser.runtime.asr.whisper.rules import DecodingOptions

__all__ = ["CROSS", "STEP", "TOKENIZER", "Decoded", "DecodingOptions", "WhisperDecoder"]
