"""What an operator is apart from TensorRT: its fields, the shapes it gives, and the kernels it runs."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from edgeser.export_tools.plugins.kernels import Kernels
from edgeser.runtime.errors import InputError

Shape = Sequence[int]
Dim = TypeVar("Dim")
Attribute = int | float | tuple[int, ...]
_KINDS: dict[str, type] = {"int": int, "float": float, "tuple[int, ...]": tuple}


class Operator(ABC):
    """An operator of the domain `edgeser`. Subclasses are frozen dataclasses whose fields are its attributes.

    Attributes:
        name: The operator's, the plugin's and the ONNX node's name.
        lengths: Which of the inputs are INT32 lengths; the others are FP32 or FP16, all of one type, as the outputs.
        input_count, output_count: How many tensors it takes and gives.
    """

    name: ClassVar[str]
    input_count: ClassVar[int]
    output_count: ClassVar[int] = 2
    lengths: ClassVar[tuple[int, ...]] = ()

    @classmethod
    def attributes(cls) -> dict[str, type]:
        """Return the attributes' types, `int`, `float` or `tuple` (of whole numbers, at least one), by name."""
        return {field.name: _KINDS[str(field.type)] for field in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Operator:
        """Make the operator from attributes by name, each a number or an array; unknown ones are ignored.

        Raises:
            InputError: An attribute is missing.
        """
        wanted = cls.attributes()
        missing = sorted(set(wanted) - set(values))
        if missing:
            got = ", ".join(values) or "none"
            raise InputError(f"{cls.name}: attributes {', '.join(missing)} are missing, got {got}")
        return cls(**{name: _read(kind, values[name]) for name, kind in wanted.items()})

    @abstractmethod
    def output_shapes(self, inputs: Sequence[Sequence[Dim]]) -> list[list[Dim]]:
        """Return the outputs' dimensions, each one of the inputs' dimensions."""

    @abstractmethod
    def workspace_bytes(self, inputs: Sequence[Shape], is_half: bool) -> int:
        """Return the bytes of scratch memory that inputs of these shapes need."""

    @abstractmethod
    def run(
        self,
        inputs: Sequence[Shape],
        is_half: bool,
        addresses: tuple[Sequence[int], Sequence[int], int],
        stream: int,
    ) -> None:
        """Start the kernels.

        Args:
            inputs: Shapes of the inputs.
            is_half: FP16 instead of FP32.
            addresses: Device addresses of the inputs, of the outputs, and of the workspace.
            stream: Handle of the CUDA stream.

        Raises:
            EngineError: The kernels cannot be compiled or started.
        """


def _read(kind: type, value: Any) -> Attribute:
    numbers = np.asarray(value).reshape(-1).tolist()
    found: Attribute = tuple(map(int, numbers)) if kind is tuple else kind(numbers[0])
    return found


@functools.cache
def kernels(name: str, **macros: int) -> Kernels:
    """Return the kernels of a source; the same ones for all plugins, so that each loads once."""
    return Kernels(name, macros)
