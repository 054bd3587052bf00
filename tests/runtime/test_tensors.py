from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from safetensors.numpy import load, save

from edgeser.runtime.tensors import from_safetensors, to_safetensors

VIEWS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.T,
    "column by column": np.asfortranarray,
    "every second": lambda x: x[..., ::2],
    "backward": lambda x: x[::-1],
    "one column": lambda x: x[..., -1],
    "repeated": lambda x: np.broadcast_to(x, (3, *x.shape)),
}


@pytest.mark.parametrize("view", VIEWS)
@given(
    values=arrays.arrays(
        st.sampled_from([np.float32, np.int8, np.int32]), arrays.array_shapes(min_dims=1, max_dims=3, min_side=1)
    )
)
def test_arrays_of_any_memory_order_come_back(view: str, values: NDArray[Any]) -> None:
    given_values = VIEWS[view](values)
    found = from_safetensors(to_safetensors({"x": given_values}))["x"]
    assert found.dtype == given_values.dtype
    np.testing.assert_array_equal(found, given_values)


def test_a_scalar_stays_one() -> None:
    assert from_safetensors(to_safetensors({"x": np.array(3.0, np.float32)}))["x"].shape == ()


def test_why_the_library_alone_is_not_enough() -> None:
    """safetensors 0.8.0 writes the memory of a view; when it no longer does, `to_safetensors` can go."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert load(save({"x": values.T}))["x"].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("content", [b"", b"{}", to_safetensors({"x": np.zeros(4)})[:-1], bytes(8)])
def test_something_else(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_safetensors(content)


def test_no_room_for_the_arrays() -> None:
    """safetensors 0.8.0 panics, and its panic prints a traceback whoever catches it.

    In a process of its own: one that has freed much finds room within what it holds.
    """
    program = """
import resource, numpy as np
from pathlib import Path
from edgeser.runtime.tensors import from_safetensors, to_safetensors
from_safetensors(to_safetensors({"x": np.zeros(1)}))
content = to_safetensors({"x": np.zeros(50_000_000, np.int8)})
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 30_000_000, resource.RLIM_INFINITY))
try:
    from_safetensors(content)
except MemoryError:
    print("no room")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("no room\n", "")
