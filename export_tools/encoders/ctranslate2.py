"""Reader of CTranslate2's `model.bin`, the form in which Whisper is often shipped."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeser.runtime.errors import InputError

_DTYPES: Mapping[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_VERSIONS = (4, 5, 6)


def read_model_bin(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """Read a model's specification and variables.

    The file, little-endian: version, specification, revision; the variables, each with name, shape, type and bytes;
    then aliases (variables under a second name). Numbers are `uint32`, names have a `uint16` length and end in a
    zero byte.

    Returns:
        The specification, for example `WhisperSpec`, and the variables by name, aliases included.

    Raises:
        InputError: The file is of another version or type, or cut short.
    """
    content = path.read_bytes()
    try:
        return _Reader(content).read()
    except (struct.error, ValueError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path}: not readable as a CTranslate2 model: {error}") from error


class WhisperWeights:
    """One half of a Whisper as CTranslate2 keeps it, on its way to `transformers`' names.

    Args:
        file: `model.bin`.
        half: `encoder` or `decoder`.

    Attributes:
        variables: By name, without the half's.
        layers: How many layers it has.

    Raises:
        InputError: The file holds another model, or is not readable.
    """

    def __init__(self, file: Path, half: str) -> None:
        specification, variables = read_model_bin(file)
        if specification != "WhisperSpec":
            raise InputError(f"{file}: got a {specification}, expected a WhisperSpec")
        names = {name.removeprefix(f"{half}/"): name for name in variables if name.startswith(f"{half}/")}
        self.variables = {ours: variables[name] for ours, name in names.items()}
        self.layers = len({n.split("/")[0] for n in names if n.startswith("layer_") and not n.startswith("layer_norm")})

    def tensor(self, name: str) -> Tensor:
        """Return a variable in single precision; `KeyError` where there is none.

        Raises:
            InputError: It is quantized.
        """
        found = self.variables[name]
        if found.dtype.kind != "f":
            raise InputError(f"model.bin: {name} is {found.dtype}, expected float16 or float32 weights")
        return torch.from_numpy(found.astype(np.float32))

    def norm(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Return a layer norm under `transformers`' names."""
        return {f"{ours}.weight": self.tensor(f"{theirs}/gamma"), f"{ours}.bias": self.tensor(f"{theirs}/beta")}

    def product(self, theirs: str, ours: Sequence[str]) -> dict[str, Tensor]:
        """Return a product that CTranslate2 keeps as one, query, key and value for example, cut into several."""
        found = {}
        for part in ("weight", "bias"):
            for name, piece in zip(ours, self.tensor(f"{theirs}/{part}").chunk(len(ours)), strict=True):
                if not (name.endswith("k_proj") and part == "bias"):  # keys have none: a softmax would cancel it
                    found[f"{name}.{part}"] = piece.clone()
        return found


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def read(self) -> tuple[str, dict[str, NDArray[Any]]]:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"got version {version}, expected one of {_VERSIONS}")
        specification = self._name()
        self._number("I")  # the specification's revision
        variables = dict(self._variable() for _ in range(self._number("I")))
        for _ in range(self._number("I")):
            alias = self._name()
            variables[alias] = variables[self._name()]
        if self._place != len(self._content):
            raise ValueError(f"{len(self._content) - self._place} bytes after its end")
        return specification, variables

    def _variable(self) -> tuple[str, NDArray[Any]]:
        name = self._name()
        shape = [self._number("I") for _ in range(self._number("B"))]
        code = self._number("B")
        if code not in _DTYPES:
            raise ValueError(f"{name!r} is of type {code}, expected one of {sorted(_DTYPES)}")
        dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
        size = self._number("I")
        if size != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise ValueError(f"{name!r} has {size} bytes, expected {dtype} {shape}")
        return name, np.frombuffer(self._take(size), dtype).reshape(shape)

    def _number(self, form: str) -> int:
        (number,) = struct.unpack("<" + form, self._take(struct.calcsize(form)))
        return int(number)

    def _name(self) -> str:
        return self._take(self._number("H")).rstrip(b"\0").decode()

    def _take(self, size: int) -> bytes:
        taken = self._content[self._place : self._place + size]
        if len(taken) != size:
            raise ValueError("cut short")
        self._place += size
        return taken
