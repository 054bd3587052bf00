"""Arrays by name as one block of bytes: safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MARGIN = 1 << 20  # what the library's own work takes beside the arrays


def to_safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the safetensors form of arrays of any memory order.

    The library (0.8) writes the memory that an array begins at, as it lies: of a transposed or sliced one the numbers
    come back in other places, or others come back.
    """
    from safetensors.numpy import save

    return save({name: np.asarray(value, order="C") for name, value in tensors.items()})


def from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors block, by name.

    Raises:
        ValueError: It is no such block.
        MemoryError: There is no room for the arrays.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # Raises where there is no room, and touches nothing; the library (0.8) panics, and prints a traceback.
    np.empty(len(content) + _MARGIN, np.uint8)
    try:
        return load(content)
    except (KeyError, TypeError, SafetensorError) as error:  # KeyError: a type that NumPy has not
        raise ValueError(str(error)) from error
