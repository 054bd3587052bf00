"""Files that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgeser.runtime.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    When the block raises, the temporary file is removed and an older file at `path` stays as it was.

    Raises:
        InputError: The folder of `path` does not exist, or `path` is a folder.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder does not exist: create {target.parent} first")
    if target.is_dir():
        raise InputError(f"{target}: is a folder, expected a file name")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically; see `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
