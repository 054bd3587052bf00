"""The files below a folder: linked folders are entered once, and one that may not be read is no silence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

Closed = Callable[[OSError], None]
"""Is told of a folder that may not be read."""


def visible_files(root: Path, on_closed: Closed, depth: int | None = None) -> Iterator[Path]:
    """Yield the files below a folder, those nearest to it first, in a fixed order, each folder once.

    Hidden ones are left out: copies made on macOS hold a resource fork `._name.wav` beside each `name.wav`. Linked
    folders come after all others, so that a file that is there without a link is named without one.

    Args:
        root: Folder.
        on_closed: Called with the error, and its `filename`, of each folder that may not be read.
        depth: How many folders below `root` to enter; `None` for all.
    """
    seen: set[tuple[int, int]] = set()
    level, links = [(os.fspath(root), 0)], list[tuple[str, int]]()
    while level:
        deeper: list[tuple[str, int]] = []
        for folder, down in level:
            try:
                folders, linked, files = _entries(folder, seen)
            except OSError as error:
                on_closed(error)
                continue
            yield from (Path(folder, name) for name in files)
            if depth is None or down < depth:
                deeper += [(os.path.join(folder, name), down + 1) for name in folders]  # noqa: PTH118 - 147,000 files
                links += [(os.path.join(folder, name), down + 1) for name in linked]  # noqa: PTH118
        if not deeper:
            deeper, links = links, []
        level = deeper


def _entries(folder: str, seen: set[tuple[int, int]]) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the visible folders, links to folders and files, sorted; nothing of a folder seen before."""
    status = os.stat(folder)  # noqa: PTH116
    if (status.st_dev, status.st_ino) in seen:
        return [], [], []
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        names = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        folders = [entry.name for entry in names if entry.is_dir(follow_symlinks=False)]
        linked = [entry.name for entry in names if entry.is_symlink() and entry.is_dir()]
        return folders, linked, [entry.name for entry in names if entry.is_file()]
