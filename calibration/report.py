"""What calibrating a bundle did, FP32 beside INT8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeser.calibration.comparison import Comparison
from edgeser.calibration.parts import Part
from edgeser.calibration.placement import activation_scale
from edgeser.calibration.sensitivity import Damage
from edgeser.calibration.sites import Site
from edgeser.calibration.words import WordsCompared


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        layer: As `part/layer`.
        parameters: How many weights.
        precision: `int8`, `int8 weights` where only those are, or `fp32`.
        reason: Why it stayed in floating point; empty when it did not.
        scale: What one step of its activation stands for; 0 in floating point.
        zero_point: The code of 0.
        low: Smallest activation seen.
        high: Largest.
        saturated: Share of the activations seen that lie outside the codes.
        evened: The strength its activation was evened out with; 0 for not.
    """

    layer: str
    parameters: int
    precision: str
    reason: str = ""
    scale: float = 0.0
    zero_point: int = 0
    low: float = 0.0
    high: float = 0.0
    saturated: float = 0.0
    evened: float = 0.0


@dataclass(frozen=True)
class CalibrationReport:
    """FP32 beside INT8.

    Attributes:
        bundle: Name and version.
        settings: Preset, method, sampling: what the manifest keeps.
        comparisons: By the utterances compared on: `validation`, and `excluded` where something was.
        bytes: Size of the bundles: `fp32` (as given), `fp32 weights` (the same with every weight as FP32), `int8`.
        p50_ms: Whole path with the transcript given, one thread of ONNX Runtime, `fp32` and `int8`, in turn; where the
            bundle brings a recogniser, that alone too: `fp32 words` and `int8 words`.
        layers: Every layer that could be quantized.
        ranking: Layers by the damage each does alone; empty when it was not asked for.
        words: What the recogniser heard, by the utterances compared on; empty where the bundle brings none.
    """

    bundle: str
    settings: Mapping[str, Any]
    comparisons: Mapping[str, Comparison]
    bytes: Mapping[str, int]
    p50_ms: Mapping[str, float]
    layers: Sequence[LayerReport]
    ranking: Sequence[Damage] = field(default_factory=tuple)
    words: Mapping[str, WordsCompared] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "bundle": self.bundle,
            "settings": dict(self.settings),
            "comparisons": {name: compared.as_dict() for name, compared in self.comparisons.items()},
            "bytes": dict(self.bytes),
            "p50_ms": {name: round(value, 2) for name, value in self.p50_ms.items()},
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "ranking": [dataclasses.asdict(damage) for damage in self.ranking],
            "words": {name: compared.as_dict() for name, compared in self.words.items()},
        }

    def text(self) -> str:
        """Return the report as small tables."""
        lines = [f"{self.bundle}: FP32 beside INT8"]
        for name, compared in self.comparisons.items():
            reference, quantized = compared.reference, compared.quantized
            lines += [
                f"  {name}, {reference.count} utterances",
                f"    UA {reference.ua:.4f} -> {quantized.ua:.4f}   WA {reference.wa:.4f} -> {quantized.wa:.4f}",
                f"    labels agree {compared.agreement:.2%}; |logit difference| max "
                f"{compared.max_logit_difference:.3f}, mean {compared.mean_logit_difference:.3f}; "
                f"Jensen-Shannon distance {compared.divergence:.4f}",
            ]
        lines += [f"  {name}, the recogniser: {compared.text()}" for name, compared in self.words.items()]
        size, fastest = self.bytes, self.p50_ms
        lines += [
            f"  size {size['fp32'] / 1e6:.1f} MB -> {size['int8'] / 1e6:.1f} MB "
            f"({size['int8'] / size['fp32']:.2f}; {size['int8'] / size['fp32 weights']:.2f} of "
            f"{size['fp32 weights'] / 1e6:.1f} MB, with every weight as FP32)",
            f"  whole path, one thread of ONNX Runtime, p50 {fastest['fp32']:.1f} ms -> {fastest['int8']:.1f} ms "
            f"({fastest['fp32'] / fastest['int8']:.2f}x)",
            *self._words_time(),
            f"  layers {sum(layer.precision != 'fp32' for layer in self.layers)} of {len(self.layers)} in INT8; "
            f"largest share of saturated activations {max((layer.saturated for layer in self.layers), default=0):.2%}",
        ]
        if self.ranking:
            lines.append("  most sensitive, each quantized alone (Jensen-Shannon distance):")
            lines += [f"    {damage.divergence:.4f}  {damage.layer}" for damage in self.ranking[:8]]
        return "\n".join(lines)

    def _words_time(self) -> Iterator[str]:
        before, after = (self.p50_ms.get(f"{form} words") for form in ("fp32", "int8"))
        if before is not None and after is not None:
            yield f"  the recogniser, p50 {before:.1f} ms -> {after:.1f} ms ({before / after:.2f}x)"


def layer_reports(part: Part, quantized: Sequence[Site], in_float: Sequence[str]) -> list[LayerReport]:
    """Describe every site of a part."""
    names = {site.name for site in quantized}
    reports = []
    for site in part.sites:
        layer = f"{part.name}/{site.name}"
        if site.name not in names:
            reason = site.float_reason or ("asked for" if layer in in_float else "")
            reports.append(LayerReport(layer, site.parameters, "fp32", reason))
        elif not site.activation:
            reports.append(LayerReport(layer, site.parameters, "int8 weights"))
        else:
            reports.append(_quantized_layer(part, site, layer))
    return reports


def _quantized_layer(part: Part, site: Site, layer: str) -> LayerReport:
    histogram = part.histograms[site.activation]
    covered = part.how.method.range(histogram)
    scale = activation_scale(covered, part.how.preset)
    return LayerReport(
        layer,
        site.parameters,
        "int8",
        scale=scale.scale,
        zero_point=scale.zero_point,
        low=histogram.low,
        high=histogram.high,
        saturated=histogram.above(covered.magnitude) / histogram.total,
        evened=part.strengths.get(site.activation.removesuffix(".smooth"), 0.0),
    )
