"""Arrays by name as one block of bytes: safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the safetensors form of arrays of any memory order.

    The library (0.8) writes the memory that an array begins at, as it lies: of a transposed or sliced one the numbers
    come back in other places, or others come back.
    """
    from safetensors.numpy import save

    return save({name: np.asarray(value, order="C") for name, value in tensors.items()})
