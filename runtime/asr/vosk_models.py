"""Vosk models on this device: found by folder or language, and checked before the native library opens them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.caches import expand_user
from edgeser.runtime.errors import AsrError, InputError

MODELS_VARIABLE = "EDGESER_VOSK_MODELS"
"""The environment variable that names a folder of models."""

_ROOTS = ("conf", "am", "graph"), ("", "", "")  # where the newer and the older layout keep their files
_IVECTOR = ("splice.conf", "online_cmvn.conf", "final.mat", "global_cmvn.stats", "final.dubm")
_NAME = re.compile(r"[a-z]+([-_.][a-z0-9]+)*", re.IGNORECASE)


def find_model(name: str) -> Path:
    """Return the folder of a model; nothing is ever downloaded.

    Args:
        name: A folder; a language (`ko`, `en-us`; `en` also finds `en-us`); or a folder's name as Vosk publishes it.

    Raises:
        InputError: There is none; the message says where it was looked for.
    """
    folder = expand_user(name, "asr")
    if name and folder.is_dir():
        return folder
    if not _NAME.fullmatch(name):
        raise InputError(f"asr: {name}: no such folder, expected a Vosk model's folder, or a language such as en-us")
    places = _places()
    for place in places:
        if model := _inside(place, name):
            return model
    if model := _packaged(name):
        return model
    raise InputError(
        f"asr: no Vosk model for {name!r}, looked for vosk-model-small-{name}-* and vosk-model-{name}-* in "
        f"{', '.join(map(str, places))}, and for the Python package {_package(name)}; EdgeSER downloads nothing: where "
        f"there is a network, take a model from https://alphacephei.com/vosk/models, unpack it here, and name it as "
        f"vosk:FOLDER or its parent folder in ${MODELS_VARIABLE}"
    )


def check_model(folder: Path) -> None:
    """Check what the native library does not: it may end the whole process over a missing file.

    Raises:
        AsrError: A file is missing or empty, or the model wants another sample rate.
    """
    conf, am, graph = _layout(folder)
    static = (graph / "HCLG.fst").is_file()
    needed = [am / "final.mdl", conf / "mfcc.conf"]
    needed += [graph / "HCLG.fst"] if static else [graph / name for name in ("HCLr.fst", "Gr.fst", "disambig_tid.int")]
    if conf != folder:
        needed.append(conf / "model.conf")
    if (folder / "ivector" / "final.ie").is_file():
        needed += [folder / "ivector" / name for name in _IVECTOR]
    for file in needed:
        if not file.is_file() or file.stat().st_size == 0:
            raise AsrError(
                f"asr: {folder} is no whole Vosk model: {file.relative_to(folder)} is "
                f"{'empty' if file.is_file() else 'missing'}: unpack the model again"
            )
    found = re.search(r"--sample-frequency=(\d+)", (conf / "mfcc.conf").read_text(encoding="utf-8", errors="replace"))
    if found and int(found[1]) != SAMPLE_RATE:
        raise AsrError(f"asr: {folder} is a model for {found[1]} Hz, expected {SAMPLE_RATE}: use another model")


def takes_grammar(folder: Path) -> bool:
    """Whether a model's graph is composed while it runs, so that a grammar can take its place."""
    return not (_layout(folder)[2] / "HCLG.fst").is_file()


@contextlib.contextmanager
def without_dither(folder: Path) -> Iterator[Path]:
    """Yield a folder of links that opens as the same model, but adds no noise of its own to the audio.

    Kaldi dithers with `rand()`, so that the same samples give other words every time; Vosk has no switch for it.
    """
    conf = _layout(folder)[0]
    settings = (conf / "mfcc.conf").read_text(encoding="utf-8", errors="replace")
    kept = [line for line in settings.splitlines() if not line.strip().startswith("--dither")]
    with tempfile.TemporaryDirectory(prefix="edgeser-vosk-") as temporary:
        copy = Path(temporary)
        target = copy / conf.relative_to(folder)
        target.mkdir(exist_ok=True)
        _link(conf, target, "mfcc.conf")
        if target != copy:
            _link(folder, copy, conf.name)
        (target / "mfcc.conf").write_text("\n".join([*kept, "--dither=0", ""]), encoding="utf-8")
        yield copy


def _link(source: Path, target: Path, without: str) -> None:
    """Link everything in a folder into another one, but one name."""
    for entry in source.iterdir():
        if entry.name != without:
            (target / entry.name).symlink_to(entry.resolve())


def _layout(folder: Path) -> tuple[Path, Path, Path]:
    """Return the folders of the settings, of the acoustic model and of the graph."""
    new, old = _ROOTS
    conf, am, graph = old if (folder / "final.mdl").is_file() else new
    return folder / conf, folder / am, folder / graph


def _places() -> list[Path]:
    """Return the folders that models are looked for in: our own first, then where Vosk itself looks."""
    named = [expand_user(v, f"${key}") for key in (MODELS_VARIABLE, "VOSK_MODEL_PATH") if (v := os.environ.get(key))]
    with contextlib.suppress(InputError):  # there may be no home
        named.append(expand_user("~/.cache/vosk", "asr"))
    return [*named, Path("/usr/share/vosk")]


def _inside(place: Path, name: str) -> Path | None:
    """Return the model for a language in a folder: a small one before a large one, a later before an earlier one."""
    if (place / name).is_dir():
        return place / name
    pattern = re.compile(rf"vosk-model(-small)?-{re.escape(name)}(-.*)?", re.IGNORECASE)
    fitting = [entry for entry in _folders(place) if pattern.fullmatch(entry.name)]
    return max(fitting, key=lambda entry: ("-small-" in entry.name, entry.name), default=None)


def _folders(place: Path) -> list[Path]:
    try:
        return [entry for entry in place.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _package(name: str) -> str:
    return f"vosk_model_{name.lower().replace('-', '_')}"


def _packaged(name: str) -> Path | None:
    """Return the model inside an installed package; the package itself is not imported."""
    spec = importlib.util.find_spec(_package(name))
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for folder in (Path(place) / "model", Path(place)):
            if (_layout(folder)[1] / "final.mdl").is_file():
                return folder
    return None
