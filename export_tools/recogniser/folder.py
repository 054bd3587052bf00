"""A recogniser as a folder: `recogniser.json` and the recogniser's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeser.export_tools.encoders.export import LENGTHS, PACKAGED, EncoderOptions, make_frontend, placed
from edgeser.export_tools.recogniser.export import RecogniserOptions, export_recogniser
from edgeser.runtime.asr.whisper import ENCODER, WhisperDecoder
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.files import check_folder, write_together
from edgeser.runtime.frontends.onnx_encoder import GRAPH
from edgeser.runtime.onnx_wire import check_graph

_DESCRIPTION = "recogniser.json"
_ENCODER_S_OWN = ("hop_s", "window_s", "normalisation", "windows")


def write_recogniser(options: EncoderOptions, folder: Path, language: str = "en") -> None:
    """Export a Whisper model's recogniser, whole or not at all.

    Args:
        options: Of the encoder that it reads. Where that gives its last hidden state beside the rows of a frontend the
            recogniser has none of its own.
        folder: Where to.
        language: Of the words.

    Raises:
        InputError: The model is no Whisper with a decoder, or does not know the language.
        ParityError: A graph does not compute it.
    """
    check_folder(folder, "keep the recogniser in")
    # A decoder reads the last layer of all that was said, whatever the rows of a frontend are.
    alone = replace(options, layer="last", beside=None, pause_db=None, levels_db=None)
    own = None if options.gives_hidden else make_frontend(alone)[0]
    length = options.length or LENGTHS["speech"]
    decoding = RecogniserOptions(length, any_rows=bool(options.windows), weights=options.weights, language=language)
    with placed(options.source) as source:
        files, description = export_recogniser(source, decoding)
    _check_language(files, options.source, language)
    packaged = PACKAGED.get(options.source)
    description["name"] = options.name or (options.source if packaged else Path(options.source).stem)
    description["licence"] = options.licence or (packaged.attribution if packaged else "not stated")
    if own is not None:
        described = own.options()
        description["encoder"] = {name: described[name] for name in _ENCODER_S_OWN if name in described}
        files[ENCODER] = own.files()[GRAPH]
    write_together(folder, {**files, _DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode()})


def _check_language(files: Mapping[str, bytes], source: str, language: str) -> None:
    try:
        WhisperDecoder(files.__getitem__, language=language).close()
    except BundleError as error:
        raise InputError(f"{source}: {error}") from error


def read_recogniser(folder: Path) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """Return a recogniser's description and its files by name.

    Raises:
        InputError: The folder holds no recogniser.
    """
    file = folder / _DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"{folder}: holds no recogniser ({_DESCRIPTION} is missing): "
            "run `edgeser export-encoder --recogniser` first"
        )
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(description, dict)
    except (ValueError, AssertionError, RecursionError) as error:
        raise InputError(f"{file}: not readable as a recogniser's description: {error}") from error
    files = {one.name: one.read_bytes() for one in sorted(folder.iterdir()) if one.is_file() and one != file}
    for name, content in files.items():
        if name.endswith(".onnx"):
            check_graph(content)
    return description, files
