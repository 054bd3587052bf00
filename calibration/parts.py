"""A bundle's graphs on their way to INT8: what was observed in each, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from edgeser.calibration.histogram import Histogram
from edgeser.calibration.observing import ObservingEngine
from edgeser.calibration.pipeline import Pipeline, read_parts
from edgeser.calibration.placement import Preset, activations, chosen, quantize
from edgeser.calibration.ranges import Method
from edgeser.calibration.rows import RowSample
from edgeser.calibration.sites import Site, find_sites
from edgeser.calibration.smoothing import channel_axis, smooth
from edgeser.calibration.tables import pack_tables
from edgeser.calibration.tied import tie_table, untie_table
from edgeser.corpora import Utterance
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine
from edgeser.runtime.errors import InputError

Progress = Callable[[int], object]
"""Called with 1 for each utterance that is done."""


@dataclass(frozen=True)
class Observation:
    """How to watch a bundle.

    Attributes:
        preset: What will be quantized.
        method: How ranges come from what was seen.
        smoothing: Whether activations are evened out first, see `smooth`.
        packing: Whether embedding tables take five bits a value, and a decoder's four: `pack_tables`, `tie_table`.
    """

    preset: Preset
    method: Method
    smoothing: bool = True
    packing: bool = True


@dataclass(frozen=True)
class Part:
    """One graph of a bundle: the model's, an encoder's, or one of the recogniser's.

    Attributes:
        name: As `Bundle.graphs` calls it.
        proto: In floating point, its activations evened out, a decoder's table untied.
        sites: What can be quantized in it.
        histograms: Of the activations that quantizing needs, by tensor.
        strengths: How far each activation was evened out, by tensor; those left alone are not in it.
        samples: Rows that this was decided by.
        how: How it was watched.
    """

    name: str
    proto: onnx.ModelProto
    sites: Sequence[Site]
    histograms: Mapping[str, Histogram]
    strengths: Mapping[str, float]
    samples: Mapping[str, RowSample]
    how: Observation

    def quantized(self, sites: Collection[Site]) -> onnx.ModelProto:
        """Return the graph with these of its sites in INT8."""
        needed = activations(self.proto, sites, self.how.preset)
        ranges = {name: self.how.method.range(self.histograms[name]) for name in needed}
        return tie_table(quantize(self.proto, sites, ranges, self.how.preset), self.how.packing, self.samples)

    def layers(self, in_float: Collection[str] = ()) -> list[Site]:
        """Return the sites to quantize; `in_float` has names as `part/layer`, of any part."""
        own = f"{self.name}/"
        return chosen(self.sites, [name.removeprefix(own) for name in in_float if name.startswith(own)])

    def twin(self, proto: onnx.ModelProto) -> Part:
        """Return another lowering of the same graph with what was observed in this one.

        Raises:
            InputError: Its layers are not the same, or read other tensors.
        """
        if self.samples:
            proto, _ = smooth(proto, chosen(find_sites(proto)), self.samples)
        sites = find_sites(proto)
        missing = set(activations(proto, chosen(sites), self.how.preset)) - set(self.histograms)
        if {site.name for site in chosen(sites)} != {site.name for site in self.layers()} or missing:
            raise InputError(f"{self.name}: its plugin graph has other layers: export the bundle again")
        return Part(self.name, proto, sites, self.histograms, self.strengths, self.samples, self.how)


def check_names(parts: Mapping[str, Part], names: Collection[str]) -> None:
    """Raise `InputError` when a name is no layer, as `part/layer`, that would be quantized."""
    known = [f"{name}/{site.name}" for name, part in parts.items() for site in part.layers()]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"--float: got {unknown[0]!r}, expected some of {', '.join(known[:4])} … ({len(known)} in all)"
        )


def observe(
    bundle: Bundle,
    utterances: Sequence[Utterance],
    how: Observation,
    progress: Progress,
    spoken: Sequence[Utterance] | None = None,
) -> dict[str, Part]:
    """Run utterances through a bundle, even its activations out, and watch them once more.

    Args:
        bundle: The bundle.
        utterances: What its model answers.
        how: How to watch.
        progress: Called for each utterance.
        spoken: What its recogniser hears; `None` for the same. A few sentences are too few words for it.

    Raises:
        InputError: A clip is not usable, or gives activations that are not finite.
    """
    spoken = utterances if spoken is None else spoken
    given = {name: untie_table(proto) for name, proto in read_parts(bundle).items()}
    protos = {name: pack_tables(proto) if how.packing else proto for name, proto in given.items()}
    samples: dict[str, Mapping[str, RowSample]] = {name: {} for name in protos}
    strengths: dict[str, dict[str, float]] = {name: {} for name in protos}
    if how.smoothing:
        channels = {
            name: {site.activation: channel_axis(site) for site in chosen(find_sites(proto)) if site.activation}
            for name, proto in protos.items()
        }
        listed = {name: list(c) for name, c in channels.items()}
        seen = _watch(bundle, protos, (utterances, spoken), listed, channels, progress)
        for name, proto in protos.items():
            samples[name] = seen[name].rows
            protos[name], strengths[name] = smooth(proto, chosen(find_sites(proto)), samples[name])
    sites = {name: find_sites(proto) for name, proto in protos.items()}
    tensors = {name: activations(protos[name], chosen(found), how.preset) for name, found in sites.items()}
    seen = _watch(bundle, protos, (utterances, spoken), tensors, {}, progress)
    return {
        name: Part(name, protos[name], sites[name], seen[name].histograms, strengths[name], samples[name], how)
        for name in protos
    }


def _watch(
    bundle: Bundle,
    protos: Mapping[str, onnx.ModelProto],
    utterances: tuple[Sequence[Utterance], Sequence[Utterance]],
    tensors: Mapping[str, Sequence[str]],
    channels: Mapping[str, Mapping[str, int]],
    progress: Progress,
) -> dict[str, ObservingEngine]:
    """Run utterances, and what the recogniser hears, through every part and return the engines that watched."""
    engines: dict[str, ObservingEngine] = {}

    def open_part(name: str, _: bytes) -> Engine:
        engines[name] = ObservingEngine(protos[name], tensors[name], channels.get(name))
        return engines[name]

    with Pipeline(bundle, open_part=open_part) as pipeline:
        pipeline.logits(utterances[0], progress)
        pipeline.words(utterances[1], progress)
    return engines


def graph_bytes(protos: Mapping[str, onnx.ModelProto]) -> dict[str, bytes]:
    """Return serialised graphs, by part."""
    return {name: proto.SerializeToString() for name, proto in protos.items()}
