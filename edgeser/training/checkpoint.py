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

_MAGIC = b"EdgeSER checkpoint, SHA-256 "
_HEAD = len(_MAGIC) + 64 + 1  # the hash in hexadecimal digits, a new line, then what `torch.save` wrote
_ZIP = b"PK\3\4"  # what `torch.save` writes begins so


class HashedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it only if it is what was written."""

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
            out.write(_MAGIC + hashlib.sha256(whole).hexdigest().encode() + b"\n")
            out.write(whole)

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


def _verified(file: Path) -> bytes:
    """Return what `torch.save` wrote into a checkpoint."""
    content = file.read_bytes()
    head, whole = content[:_HEAD], content[_HEAD:]
    if content.startswith(_ZIP) and _is_sound(content):  # of a version before hashes: a zip has checksums of its own
        return content
    if head != _MAGIC + hashlib.sha256(whole).hexdigest().encode() + b"\n":
        raise InputError(
            f"{file}: the checkpoint is damaged, its SHA-256 is not the one it carries: delete it, and the same "
            "command trains this fold from its beginning"
        )
    return whole


def _is_sound(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError):
        return False
