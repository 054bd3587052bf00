"""TOML files, with errors of one line that say where."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from edgeser.runtime.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10, that of JetPack 6, has no TOML reader of its own
    import tomli as tomllib


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a UTF-8 TOML file into plain dicts, lists and values.

    Raises:
        InputError: The file is missing, or not TOML; the message names line and column.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}, expected a TOML file")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: not readable ({error.strerror})") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as UTF-8 TOML: {reason}") from error
    except RecursionError as error:
        raise InputError(f"{file}: not readable as UTF-8 TOML: nested too deeply") from error
