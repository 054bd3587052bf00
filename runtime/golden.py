"""Golden vectors: real inputs and reference logits that travel in the bundle, for every engine to prove itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.bundle import GOLDEN, Bundle
from edgeser.runtime.engines import Engine
from edgeser.runtime.errors import BundleError, ParityError

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-1}
"""Largest |logit difference| that an engine may show, by the bundle's precision."""


@dataclass(frozen=True)
class GoldenVectors:
    """Reference inputs and outputs.

    Attributes:
        inputs: The graph's inputs, one batch.
        logits: `(N, classes)` float32, what they must give.
    """

    inputs: Mapping[str, NDArray[np.generic]]
    logits: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the safetensors form: without padding, and in half precision where nothing is lost by it."""
        from safetensors.numpy import save

        return save({**{f"input.{n}": self._packed(n) for n in self.inputs}, "logits": self.logits})

    def _packed(self, name: str) -> NDArray[np.generic]:
        value = self.inputs[name]
        if value.dtype != np.float32:
            return value
        value = value[:, : int(self.inputs[f"{name}_length"].max(initial=0))]
        half = value.astype(np.float16)
        return np.ascontiguousarray(half if np.array_equal(half.astype(np.float32), value) else value)

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> GoldenVectors:
        """Read a bundle's golden vectors."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(bundle.read(GOLDEN))
            logits = tensors.pop("logits")
        except (KeyError, SafetensorError) as error:
            raise BundleError(f"{bundle.path}: {GOLDEN} is not usable: {error}") from error
        inputs = {name.removeprefix("input."): value for name, value in tensors.items()}
        for name, entry in bundle.manifest.inputs.items():
            packed = inputs.get(name)
            if packed is None or packed.ndim != 3 or packed.shape[1] > entry.length or packed.shape[2] != entry.dim:
                shape = f"{entry.length} x {entry.dim}"
                raise BundleError(f"{bundle.path}: {GOLDEN} is not usable: no input {name} of {shape}")
            rows = np.zeros((packed.shape[0], entry.length, packed.shape[2]), dtype=np.float32)
            rows[:, : packed.shape[1]] = packed
            inputs[name] = rows
        return cls(inputs, logits)


def verify_engine(engine: Engine, bundle: Bundle, count: int | None = None) -> float:
    """Run the golden vectors through an engine.

    Args:
        engine: An engine opened on one of the bundle's graphs.
        bundle: The bundle.
        count: How many vectors to run; `None` for all.

    Returns:
        The largest |logit difference|.

    Raises:
        ParityError: It is above `TOLERANCE`, or not a number.
    """
    golden = GoldenVectors.from_bundle(bundle)
    logits = engine.run({name: value[:count] for name, value in golden.inputs.items()})["logits"]
    expected = golden.logits[:count]
    if logits.shape != expected.shape:
        raise BundleError(
            f"{bundle.path}: {GOLDEN} is not usable: logits {expected.shape}, the graph gives {logits.shape}"
        )
    difference = float(np.abs(logits - expected).max())
    limit = TOLERANCE[bundle.manifest.precision]
    if not difference <= limit:
        raise ParityError(
            f"{engine.name}: golden vectors differ by {difference:.2e}, at most {limit:.0e} is expected: "
            "this engine does not compute this model on this device"
        )
    return difference
