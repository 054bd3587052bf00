"""Fit a bundle to one user's voice, and write it as a bundle of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.runtime.adaptation import ADAPTATION, Adaptation, AdaptationEntry, Source
from edgeser.runtime.adapting.choosing import Correction, Span, Strength, choose, correct, held_out_logits
from edgeser.runtime.adapting.clips import Clips
from edgeser.runtime.adapting.regression import Array
from edgeser.runtime.bundle import CARD, Bundle, check_bundle_place, write_bundle
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.files import check_room
from edgeser.runtime.manifest import Manifest
from edgeser.runtime.metrics import Metrics, measure

HELD_OUT = "the user's clips, held out"
SHIPPED = "as shipped: "
_SECTION = "\n## Adapted to a voice\n"
_SUFFIX = "-adapted"


@dataclass(frozen=True)
class Adapted:
    """What was fitted to a user's clips, and what it is worth.

    Attributes:
        clips: What it was fitted to.
        adaptation: The correction, fitted to all clips, without a prior.
        strength: How far it goes; chosen by cross-validation.
        shipped: What the bundle as it shipped makes of the clips, cold, among the emotions that are answered.
        adapted: The same of corrections that knew nothing of the clip in question.
    """

    clips: Clips
    adaptation: Adaptation
    strength: Strength
    shipped: Metrics
    adapted: Metrics

    @property
    def is_better(self) -> bool:
        """Whether the unweighted accuracy on held-out clips rose."""
        return self.adapted.ua > self.shipped.ua

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "better": self.is_better,
            "clips": self.clips.counts(),
            "shipped": self.shipped.as_dict(),
            "adapted": self.adapted.as_dict(),
            "strength": dataclasses.asdict(self.strength),
        }


@dataclass(frozen=True)
class Naming:
    """What an adapted bundle is called.

    Attributes:
        name: `None` for the source's with `-adapted`.
        version: `None` for the source's.
        prior: How probable each emotion is, sums to 1; `None` where all are taken to be as probable.
    """

    name: str | None = None
    version: str | None = None
    prior: Mapping[str, float] | None = None


def adapt(bundle: Bundle, clips: Clips, tick: Callable[[], object] = lambda: None) -> Adapted:
    """Fit a correction to clips; its strength, and what it is worth, by cross-validation on them.

    Args:
        bundle: The bundle whose graph gave the clips' logits.
        clips: The user's.
        tick: Called at most six times.
    """
    span, everyone = Span.of(clips), np.arange(clips.classes.size)
    blind = held_out_logits(clips, span, tick)
    strength = choose(clips, span, everyone)
    correction = correct(clips, span, everyone, strength)
    tick()
    known = bundle.manifest.labels
    classes = tuple(known.index(label) for label in clips.labels)
    adaptation = _adaptation(classes, correction, span)
    if clips.heard is not None:
        adaptation = dataclasses.replace(adaptation, heard=clips.heard.mean, count=clips.heard.count)
    return Adapted(clips, adaptation, strength, _measured(clips, clips.cold), _measured(clips, blind))


def write_adapted(bundle: Bundle, found: Adapted, naming: Naming, place: str | os.PathLike[str]) -> Bundle:
    """Write a bundle with a correction beside its graph; golden vectors stay those of the graph.

    What was adapted before loses that correction: it begins with the bundle as it shipped.

    Raises:
        BundleError: There is something else in that place.
        InputError: It cannot be written there.
        EdgeSerError: It cannot be written, for want of room for example.
    """
    entry = AdaptationEntry(
        source=source_of(bundle),
        labels=found.clips.labels,
        clips=found.clips.counts(),
        ua={"shipped": round(found.shipped.ua, 4), "adapted": round(found.adapted.ua, 4)},
        prior=None if naming.prior is None else {label: round(p, 6) for label, p in naming.prior.items()},
    )
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    files[ADAPTATION] = with_prior(found.adaptation, found.clips.labels, naming.prior).to_bytes()
    card = files.get(CARD, b"").decode().partition(_SECTION)[0].rstrip("\n")
    files[CARD] = f"{card}\n{_section(entry)}".encode()
    return write_bundle(place, _manifest(bundle.manifest, entry, found, naming), files)


def source_of(bundle: Bundle) -> Source:
    """Return the bundle as it shipped: this one, or what it was adapted from."""
    manifest = bundle.manifest
    if manifest.adaptation is not None:
        return manifest.adaptation.source
    return Source(manifest.name, manifest.version, bundle.sha256)


def check_adaptable(bundle: Bundle, place: Path) -> None:
    """Find out, before the work is done, whether a bundle can be adapted and the result written.

    Raises:
        BundleError: It hears no voice, or what lies in that place is no bundle.
        InputError: The place is the bundle's own, or cannot be written to.
        EdgeSerError: There is no room.
    """
    if "audio" not in bundle.manifest.inputs:
        raise BundleError(f"{bundle.path}: takes {', '.join(bundle.manifest.inputs)}, it hears no voice to adapt to")
    if place.exists() and place.resolve() == bundle.path.resolve():
        raise InputError(f"--out: {place} is the bundle to adapt: name another, it is needed again")
    check_bundle_place(place)
    check_room(place, sum(entry.bytes for entry in bundle.manifest.files.values()))


def with_prior(adaptation: Adaptation, labels: tuple[str, ...], prior: Mapping[str, float] | None) -> Adaptation:
    """Return a correction for emotions that are not all as probable; those of a prior are above 0 and sum to 1."""
    if prior is None:
        return adaptation
    odds = np.log([prior[label] * len(labels) for label in labels])
    return dataclasses.replace(adaptation, bias=(adaptation.bias + odds).astype(np.float32))


def _adaptation(classes: tuple[int, ...], correction: Correction, span: Span) -> Adaptation:
    weights = span.basis @ correction.weights
    bias = correction.bias - span.center @ weights
    return Adaptation(classes, correction.strength.scale, weights.astype(np.float32), bias.astype(np.float32))


def _measured(clips: Clips, logits: Array) -> Metrics:
    predicted = [clips.labels[i] for i in logits.argmax(axis=1)]
    return measure(predicted, [clips.labels[i] for i in clips.classes], clips.labels)


def _manifest(manifest: Manifest, entry: AdaptationEntry, found: Adapted, naming: Naming) -> Manifest:
    measured = {
        SHIPPED + protocol.removeprefix(SHIPPED): result
        for protocol, result in manifest.metrics.items()
        if protocol != HELD_OUT
    }
    return dataclasses.replace(
        manifest,
        name=naming.name or entry.source.name + _SUFFIX,
        version=naming.version or entry.source.version,
        metrics={HELD_OUT: found.adapted.as_dict(), **measured},
        adaptation=entry,
        confidence=None,  # of other logits; a user's few clips are too few to measure it on
        files={},
    )


def _section(entry: AdaptationEntry) -> str:
    clips = ", ".join(f"{count} {label}" for label, count in entry.clips.items())
    prior = "equally probable"
    if entry.prior is not None:
        prior = "as probable as " + ", ".join(f"{label} {p:.2f}" for label, p in entry.prior.items())
    return "\n".join(
        [
            _SECTION,
            f"This bundle is {entry.source.name} {entry.source.version} (manifest SHA-256 {entry.source.sha256}) with "
            "its last linear part fitted to one user's clips. What is said above is of the bundle as it shipped; for "
            "other voices than the user's nobody has measured this one.",
            "",
            f"- Recordings: {clips}.",
            f"- Answers: {', '.join(entry.labels)}; taken to be {prior}.",
            f"- Unweighted accuracy on clips that were held out: {entry.ua['shipped']:.3f} as shipped, "
            f"{entry.ua['adapted']:.3f} adapted.",
            "",
        ]
    )
