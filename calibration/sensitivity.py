"""Which layers suffer from INT8, and the smallest set of them to leave in floating point."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.calibration.comparison import Comparison, compare
from edgeser.calibration.parts import Part, Progress, graph_bytes
from edgeser.calibration.pipeline import Cached, Pipeline, gives_words
from edgeser.calibration.sites import Site
from edgeser.corpora import Utterance
from edgeser.runtime.bundle import MODEL, Bundle
from edgeser.runtime.engines import open_engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """What quantizing one layer alone does, all others in floating point.

    Attributes:
        layer: As `part/layer`.
        parameters: How many weights it has.
        divergence: Mean Jensen-Shannon distance of the probabilities from floating point's; what layers are ranked by.
        drop: How far UA falls.
        agreement: Share of the utterances with the same label.
    """

    layer: str
    parameters: int
    divergence: float
    drop: float
    agreement: float


class Sensitivity:
    """Measures on the validation utterances, with the features of all other parts kept.

    Args:
        bundle: The bundle, in floating point.
        parts: Its parts, observed; the recogniser's are left out, since the words are given.
        utterances: The validation set.
    """

    def __init__(self, bundle: Bundle, parts: Mapping[str, Part], utterances: Sequence[Utterance]) -> None:
        self._bundle = bundle
        self._parts = {name: part for name, part in parts.items() if not gives_words(name)}
        self._utterances = utterances
        with Pipeline(bundle) as pipeline:
            self._cached = Cached.of(pipeline, utterances)
            self.reference = self._cached.logits(pipeline.engine)

    def count(self) -> int:
        """Return how many layers `rank` tries."""
        return sum(len(part.layers()) for part in self._parts.values())

    def rank(self, progress: Progress = lambda _: None) -> list[Damage]:
        """Quantize one layer at a time; return the damage of each, the worst first."""
        found = []
        for name, part, site in self._layers():
            compared = self._compare(self._alone(name, part, site))
            layer = f"{name}/{site.name}"
            found.append(Damage(layer, site.parameters, compared.divergence, compared.drop, compared.agreement))
            progress(1)
        return sorted(found, key=lambda damage: -damage.divergence)

    def _layers(self) -> Iterator[tuple[str, Part, Site]]:
        for name, part in self._parts.items():
            yield from ((name, part, site) for site in part.layers())

    def _alone(self, name: str, part: Part, site: Site) -> NDArray[np.float32]:
        graph = part.quantized([site]).SerializeToString()
        if name == MODEL:
            with open_engine(graph, "onnxruntime") as engine:
                return self._cached.logits(engine)
        with Pipeline(self._bundle, {name: graph}) as pipeline:
            return self._cached.with_part(pipeline, name).logits(pipeline.engine)

    def together(self, in_float: Sequence[str] = ()) -> Comparison:
        """Compare with floating point when all layers but some are quantized."""
        graphs = graph_bytes({name: part.quantized(part.layers(in_float)) for name, part in self._parts.items()})
        with Pipeline(self._bundle, graphs) as pipeline:
            return self._compare(pipeline.logits(self._utterances))

    def _compare(self, logits: NDArray[np.float32]) -> Comparison:
        return compare(self.reference, logits, self._utterances, self._bundle.manifest.labels)


def leave_in_float(
    ranking: Sequence[Damage], together: Callable[[Sequence[str]], Comparison], max_drop: float
) -> list[str]:
    """Return the shortest beginning of a ranking that, left in floating point, keeps the fall of UA within a limit.

    Args:
        ranking: Layers, the worst first.
        together: Compares with floating point when all layers but the named ones are quantized.
        max_drop: Largest fall of UA, for example 0.005.

    Returns:
        Names as `part/layer`; all of them when not even that many but one is enough.
    """
    names = [damage.layer for damage in ranking]
    for count in range(len(names)):
        compared = together(names[:count])
        log.info("%d layers in floating point: UA falls by %.4f", count, compared.drop)
        if compared.drop <= max_drop:
            return names[:count]
    return names
