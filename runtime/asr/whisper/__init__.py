"""Whisper as a recogniser: words from the last hidden state of an encoder that runs for the emotion anyway."""

from edgeser.runtime.asr.whisper.decoder import Decoded, WhisperDecoder
from edgeser.runtime.asr.whisper.files import CROSS, ENCODER, STEP, TOKENIZER
from edgeser.runtime.asr.whisper.recogniser import WhisperAsr
from edgeser.runtime.asr.whisper.rules import DecodingOptions

__all__ = ["CROSS", "ENCODER", "STEP", "TOKENIZER", "Decoded", "DecodingOptions", "WhisperAsr", "WhisperDecoder"]
