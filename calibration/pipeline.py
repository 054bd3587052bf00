"""A bundle's whole path, from an utterance to logits, part by part, with graphs and engines of our choosing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeser.corpora import Utterance
from edgeser.corpora.inputs import extract_features, load_utterance, stack_features
from edgeser.runtime.asr import Transcript
from edgeser.runtime.bundle import MODEL, Bundle
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, TextFrontend
from edgeser.runtime.manifest import RECOGNISER

OpenPart = Callable[[str, bytes], Engine]
"""Opens the graph of a part."""


def read_parts(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """Return the graphs of a bundle's parts, named as `Bundle.graphs` does; the model comes last."""
    return {part: onnx.load_from_string(bundle.read(path)) for part, path in bundle.graphs().items()}


def gives_words(part: str) -> bool:
    """Whether a part is the recogniser's: words come from it, which the logits of a given transcript do not need."""
    return part.startswith(RECOGNISER)


class Pipeline:
    """A bundle's frontends, engine and recogniser.

    Args:
        bundle: The bundle.
        graphs: Graphs to run instead of the bundle's own, by part.
        open_part: Opens them; by default ONNX Runtime on one thread.

    Attributes:
        labels: Emotions in the order of the logits.
        frontends: By modality.
        engine: Of the model.
        asr: The bundle's own recogniser; `None` where it brings none.
    """

    def __init__(
        self, bundle: Bundle, graphs: Mapping[str, bytes] | None = None, open_part: OpenPart | None = None
    ) -> None:
        graphs = graphs or {}
        opener: OpenPart = open_part or (lambda _, graph: open_engine(graph, "onnxruntime"))
        self.labels = bundle.manifest.labels

        def opening(part: str) -> Callable[[bytes], Engine]:
            return lambda graph: opener(part, graphs.get(part, graph))

        self.frontends: dict[str, Frontend] = {
            name: bundle.frontend(name, opening(name)) for name in bundle.manifest.inputs
        }
        self.engine = opener(MODEL, graphs.get(MODEL) or bundle.graph())
        heard = {bundle.read(path): part for part, path in bundle.graphs().items() if gives_words(part)}
        self.asr = bundle.recogniser(self.frontends, lambda graph: opening(heard[graph])(graph))

    def features(self, utterances: Sequence[Utterance], modality: str) -> Iterator[tuple[Utterance, Features]]:
        """Yield utterances with one modality's features, those of one recording or line together and computed once."""
        is_audio = isinstance(self.frontends[modality], AudioFrontend)

        def key(utterance: Utterance) -> str:
            return "|".join(map(str, utterance.recording)) if is_audio else utterance.transcript or ""

        last_key, last = None, None
        for utterance in sorted(utterances, key=key):
            if last is None or key(utterance) != last_key:
                last_key, last = key(utterance), extract_features(self.frontends[modality], utterance)
            yield utterance, last

    def logits(
        self, utterances: Sequence[Utterance], progress: Callable[[int], object] = lambda _: None
    ) -> NDArray[np.float32]:
        """Return `(utterances, classes)` logits; only one recording's features are held at a time."""
        spoken = [name for name, frontend in self.frontends.items() if isinstance(frontend, TextFrontend)]
        words = {name: {u.id: features for u, features in self.features(utterances, name)} for name in spoken}
        rows: dict[str, NDArray[np.float32]] = {}
        for utterance, heard in self._heard(utterances):
            given = {**heard, **{name: words[name][utterance.id] for name in spoken}}
            feeds = stack_features({name: [given[name]] for name in self.frontends})
            rows[utterance.id] = self.engine.run(feeds)["logits"][0]
            progress(1)
        if len(rows) != len(utterances):
            raise InputError(f"corpus: {len(utterances) - len(rows)} utterances share an id with another")
        return np.stack([rows[u.id] for u in utterances])

    def _heard(self, utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, dict[str, Features]]]:
        """Yield utterances with the features of their recordings, where the model takes audio."""
        if not isinstance(self.frontends.get("audio"), AudioFrontend):
            yield from ((utterance, {}) for utterance in utterances)
            return
        for utterance, audio in self.features(utterances, "audio"):
            yield utterance, {"audio": audio}

    def words(
        self, utterances: Sequence[Utterance], progress: Callable[[int], object] = lambda _: None
    ) -> dict[str, Transcript]:
        """Return what the bundle's recogniser hears in each recording, by the first utterance's id."""
        if self.asr is None:
            return {}
        heard: dict[str, Transcript] = {}
        recordings = set()
        for utterance in utterances:
            if utterance.recording not in recordings:
                recordings.add(utterance.recording)
                heard[utterance.id] = self.asr.hear(load_utterance(utterance))
            progress(1)
        return heard

    def close(self) -> None:
        """Free the engines."""
        self.engine.close()
        if self.asr is not None:
            self.asr.close()
        for frontend in self.frontends.values():
            frontend.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Cached:
    """Features of a set of utterances, kept so that one part can change while the others stay.

    Attributes:
        utterances: In order.
        features: By modality, one for each utterance; those of one recording share memory.
    """

    utterances: tuple[Utterance, ...]
    features: Mapping[str, Sequence[Features]]

    @classmethod
    def of(cls, pipeline: Pipeline, utterances: Sequence[Utterance]) -> Cached:
        """Compute every modality's features."""
        return cls(tuple(utterances), {name: _ordered(pipeline, utterances, name) for name in pipeline.frontends})

    def with_part(self, pipeline: Pipeline, modality: str) -> Cached:
        """Return the same with one modality computed anew."""
        return Cached(self.utterances, {**self.features, modality: _ordered(pipeline, self.utterances, modality)})

    def logits(self, engine: Engine) -> NDArray[np.float32]:
        """Return `(utterances, classes)` logits."""
        rows = []
        for place in range(len(self.utterances)):
            feeds = stack_features({name: [several[place]] for name, several in self.features.items()})
            rows.append(engine.run(feeds)["logits"][0])
        return np.stack(rows)


def _ordered(pipeline: Pipeline, utterances: Sequence[Utterance], modality: str) -> list[Features]:
    found = {utterance.id: features for utterance, features in pipeline.features(utterances, modality)}
    return [found[utterance.id] for utterance in utterances]
