"""Frontends: raw input to fixed-length feature rows, the same code for training and on the device."""

from edgeser.runtime.frontends.base import (
    AudioFrontend,
    Features,
    Frontend,
    OpenGraph,
    ReadFile,
    TextFrontend,
    Token,
    fit_length,
)
from edgeser.runtime.frontends.folder import read_frontend, write_frontend
from edgeser.runtime.frontends.log_mel import LogMel
from edgeser.runtime.frontends.onnx_encoder import SpeechEncoder, TextEncoder
from edgeser.runtime.frontends.phonemes import PHONEMES, Phonemes
from edgeser.runtime.frontends.registry import KINDS, restore_frontend
from edgeser.runtime.frontends.statistics import Rows, Statistics
from edgeser.runtime.frontends.word_vectors import WordVectors

__all__ = [
    "KINDS",
    "PHONEMES",
    "AudioFrontend",
    "Features",
    "Frontend",
    "LogMel",
    "OpenGraph",
    "Phonemes",
    "ReadFile",
    "Rows",
    "SpeechEncoder",
    "Statistics",
    "TextEncoder",
    "TextFrontend",
    "Token",
    "WordVectors",
    "fit_length",
    "read_frontend",
    "restore_frontend",
    "write_frontend",
]
