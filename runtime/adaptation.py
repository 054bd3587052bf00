"""What a bundle has learned of one user's voice: a linear correction of the logits, kept beside the graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import BundleError
from edgeser.runtime.tensors import from_safetensors, to_safetensors

ADAPTATION = "adaptation.safetensors"
_FLOAT = np.dtype(np.float32)
_TENSORS = dict.fromkeys(("scale", "weights", "bias"), _FLOAT)
_HEARD = {"count": np.dtype(np.int64), "heard": np.dtype(np.float64)}
_MOST_COUNT = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """The bundle that was adapted: the one as it shipped, also where that was adapted before."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class AdaptationEntry:
    """What the manifest says of an adaptation; nothing of the user's but counts and accuracies.

    Attributes:
        source: What was adapted.
        labels: Emotions that are answered, in the order of the model's classes.
        clips: Recordings of each that it was fitted to.
        ua: Unweighted accuracy, 0 to 1, on clips that were held out, of the source (`shipped`) and of corrections that
            knew nothing of them (`adapted`).
        prior: How probable each emotion was said to be, 0 to 1; `None` where all are taken to be as probable.

    Raises:
        BundleError: Anything else.
    """

    source: Source
    labels: tuple[str, ...]
    clips: Mapping[str, int]
    ua: Mapping[str, float]
    prior: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        texts = (self.source.name, self.source.version, self.source.sha256, *labels)
        _check(all(isinstance(text, str) for text in texts), "source and labels, expected texts")
        _check(_SHA256.fullmatch(self.source.sha256) is not None, "source, expected a SHA-256")
        _check(2 <= len(labels) == len(set(labels)), f"labels {list(labels)}, expected 2 or more different ones")
        _check(set(self.clips) == set(labels), "clips, expected a count of each label")
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in self.clips.values())
        _check(whole, "clips, expected whole numbers above 0")
        _check(set(self.ua) == {"shipped", "adapted"}, "ua, expected shipped and adapted")
        _check(self.prior is None or set(self.prior) == set(labels), "prior, expected that of each label")
        for value in (*self.ua.values(), *(self.prior or {}).values()):
            share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0
            _check(share, "ua and prior, expected numbers from 0 to 1")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AdaptationEntry:
        """Read what `json` made of an entry.

        Raises:
            BundleError: A field is missing, unknown, or not as the class says.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        _check(sorted(content) == sorted(names), f"got {', '.join(content)}, expected {', '.join(names)}")
        kinds: tuple[type, ...] = (dict, list, dict, dict)
        for name, kind in zip(names, kinds, strict=False):
            _check(isinstance(content[name], kind), f"{name} is of the wrong kind")
        prior = content["prior"]
        _check(prior is None or isinstance(prior, dict), "prior is of the wrong kind")
        source = content["source"]
        _check(sorted(source) == ["name", "sha256", "version"], "source, expected name, version and sha256")
        return cls(**{**content, "source": Source(**source), "labels": tuple(content["labels"])})


@dataclass(frozen=True)
class Adaptation:
    """Turns the graph's logits into the answered ones: `scale * logits[:, classes] + means @ weights + bias`.

    Attributes:
        classes: The graph's classes that are answered, rising.
        scale: What the graph's own logits count, above 0.
        weights: `(dim, answers)` float32.
        bias: `(answers,)` float32.
        heard: `(dim,)` float64, the mean of the user's clips, which is taken out of rows as a running mean is; `None`
            where nothing was.
        count: Clips that it is the mean of.

    Raises:
        BundleError: Shapes that do not go together, or values that are not finite.
    """

    classes: tuple[int, ...]
    scale: float
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    heard: NDArray[np.float64] | None = None
    count: int = 0

    def __post_init__(self) -> None:
        answers = len(self.classes)
        if self.weights.ndim != 2 or self.weights.shape[1] != answers or self.bias.shape != (answers,):
            raise BundleError(
                f"{ADAPTATION}: weights {self.weights.shape} and bias {self.bias.shape}, expected (dim, {answers}) and "
                f"({answers},)"
            )
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all() and 0.0 < self.scale < np.inf):
            raise BundleError(f"{ADAPTATION}: weights, bias or scale are not finite, or the scale is not above 0")
        if self.heard is None:
            return
        if self.heard.shape != (self.dim,) or not np.isfinite(self.heard).all() or not 0 < self.count <= _MOST_COUNT:
            raise BundleError(
                f"{ADAPTATION}: a mean {self.heard.shape} of {self.count} clips, expected ({self.dim},), finite, and 1 "
                f"to {_MOST_COUNT:,}"
            )

    @property
    def dim(self) -> int:
        """Width of the voice's rows."""
        return int(self.weights.shape[0])

    def apply(self, logits: NDArray[np.floating], means: NDArray[np.floating]) -> NDArray[np.float64]:
        """Correct logits.

        Args:
            logits: `(N, classes)`, the graph's.
            means: `(N, dim)`, the mean over the valid rows of each voice, as the graph gets them.

        Returns:
            `(N, answers)`.
        """
        base = self.scale * logits[:, self.classes].astype(np.float64)
        corrected: NDArray[np.float64] = base + means.astype(np.float64) @ self.weights + self.bias
        return corrected

    def to_bytes(self) -> bytes:
        """Return the safetensors form; which classes are answered, the manifest says."""
        tensors: dict[str, NDArray[Any]] = {"weights": self.weights, "bias": self.bias}
        tensors["scale"] = np.array([self.scale], dtype=np.float32)
        if self.heard is not None:
            tensors.update(heard=self.heard, count=np.array([self.count], dtype=np.int64))
        return to_safetensors(tensors)

    @classmethod
    def from_bytes(cls, content: bytes, entry: AdaptationEntry, labels: Sequence[str]) -> Adaptation:
        """Read what `to_bytes` wrote.

        Args:
            content: The file's.
            entry: The manifest's.
            labels: The graph's.

        Raises:
            BundleError: It is something else.
        """
        try:
            tensors = from_safetensors(content)
        except ValueError as error:
            raise BundleError(f"{ADAPTATION}: not readable: {error}") from error
        kinds = {name: value.dtype for name, value in tensors.items()}
        ones = [value.shape for name, value in tensors.items() if name in ("scale", "count")]
        if kinds not in (_TENSORS, {**_TENSORS, **_HEARD}) or set(ones) != {(1,)}:
            found = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in sorted(tensors.items()))
            raise BundleError(f"{ADAPTATION}: holds {found:.100}, expected {', '.join(_TENSORS)} in float32")
        classes = tuple(labels.index(label) for label in entry.labels)
        scale, count = float(tensors["scale"][0]), int(tensors.get("count", [0])[0])
        return cls(classes, scale, tensors["weights"], tensors["bias"], tensors.get("heard"), count)


def _check(good: bool, what: str) -> None:
    if not good:
        raise BundleError(f"manifest.json: adaptation: {' '.join(what.split())}"[:200])
