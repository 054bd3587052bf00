"""Checkpoints that carry the hash of their content: a damaged one is refused, never trained on."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing

_SEAL = b"EdgeSER checkpoint, SHA-256 "
_SEAL_SIZE = len(_SEAL) + 64 + 1  # the hash in hexadecimal digits and a new line, behind what `torch.save` wrote
_ZIP_END = b"PK\5\6"  # what `torch.save` writes is a zip, whose last record is 22 bytes long
_ZIP_END_SIZE = 22


class HashedCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads only what was written; `torch.load` reads them too."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; an older one of that name stays until this one is on the disk.

        Raises:
            EdgeSerError: It cannot be written, for want of room for example.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        whole = content.getvalue()
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as out:
            out.write(whole)
            out.write(_seal(whole))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            InputError: It is damaged.
        """
        whole = _verified(Path(path))
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(whole), map_location, weights_only=weights_only)
        return checkpoint


def _seal(whole: bytes) -> bytes:
    return _SEAL + hashlib.sha256(whole).hexdigest().encode() + b"\n"


def _verified(file: Path) -> bytes:
    """Return what `torch.save` wrote into a checkpoint."""
    content = file.read_bytes()
    whole, seal = content[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    if seal == _seal(whole):
        return whole
    if _is_sound_zip(content):  # of a version before hashes: a zip has checksums of its own
        return content
    raise InputError(
        f"{file}: the checkpoint is damaged, its SHA-256 is not the one it carries: delete it, and the same command "
        "trains this fold from its beginning"
    )


def _is_sound_zip(content: bytes) -> bool:
    """Whether every file of a zip has its checksum, and nothing stands behind it."""
    if not content[-_ZIP_END_SIZE:].startswith(_ZIP_END):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError):
        return False
