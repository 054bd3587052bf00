"""Noises and rooms to train and to test with: never the same file for both."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import InputError

ROOM = "room"
SPLITS = ("train", "test")
_COLUMNS = ("id", "audio", "kind")


@dataclass(frozen=True)
class NoiseBank:
    """Files that conditions are drawn from, in a fixed order.

    Attributes:
        noises: Noises.
        rooms: Impulse responses.
        voices: Recordings of speech, for babble.
    """

    noises: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()


def read_noises(manifest: str | Path, split: str) -> NoiseBank:
    """Read a CSV with `id`, `audio` (relative to it) and `kind`, of which `room` are impulse responses.

    Args:
        manifest: The file, also as `manifest:FILE`.
        split: `train` or `test`. A hash of the id says which of them a file is in: two thirds are in `train`.

    Raises:
        InputError: The manifest is not usable, or has no noise in this split.
    """
    manifest = Path(str(manifest).removeprefix("manifest:"))
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{manifest}: no column {', '.join(missing)}, expected {', '.join(_COLUMNS)}")
            rows = [row for row in reader if split_of(row["id"] or "") == split]
    except OSError as error:
        raise InputError(f"{manifest}: {error.strerror}: expected a manifest of noises") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest}: not readable as UTF-8 CSV: {error}") from error
    files: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        path = manifest.parent / (row["audio"] or "")
        if not path.is_file():
            raise InputError(f"{path}: no such file ({manifest}, id {row['id']})")
        files[row["kind"] == ROOM].append(str(path))
    if not files[False]:
        raise InputError(f"{manifest}: has no noise in the {split} split of {', '.join(SPLITS)}, expected some")
    return NoiseBank(tuple(files[False]), tuple(files[True]))


def split_of(name: str) -> str:
    """Return the split of a noise: `train` for two thirds of all names, `test` for the others."""
    return "test" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0 else "train"
