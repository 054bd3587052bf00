"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeser.runtime.confidence import COLD, RUN, SHOWN_SHARES, Confidence
from edgeser.runtime.manifest import InputEntry, Manifest

_STATES = {COLD: "nothing heard before", RUN: "the mean of what was heard taken out"}


def model_card(manifest: Manifest, parameters: int) -> str:
    """Return a model card in Markdown: what the model is, was trained on, reaches and must not be used for."""
    provenance = manifest.provenance
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"- Model: {manifest.model.family}, preset {manifest.model.preset}, {parameters:,} parameters, "
        f"{manifest.precision}",
        f"- Emotions: {', '.join(manifest.labels)}",
        *(f"- Input {name}: {entry.length} x {entry.dim}, {_source(entry)}" for name, entry in manifest.inputs.items()),
        f"- Trained on: {provenance['corpus']['name']}; held out: {provenance['training'].get('held_out')}",
        f"- Licence: {provenance['licence']}",
        "",
        "## Results",
        "",
    ]
    if manifest.metrics:
        for protocol, result in manifest.metrics.items():
            lines += [f"{protocol}: WA {result['wa']:.3f}, UA {result['ua']:.3f}, WF1 {result['wf1']:.3f}", ""]
            lines += [*_folds(result), *_confusion(manifest.labels, result)]
    else:
        lines += ["None were given at export.", ""]
    if manifest.confidence is not None:
        lines += _confidence(manifest.confidence)
    lines += [
        "## Limits",
        "",
        "The model knows the voices, languages and recording conditions it was trained on, and no others. "
        "It guesses how an utterance sounds, not what a person feels; do not decide about people with it.",
        "",
    ]
    return "\n".join(lines)


def _confidence(confidence: Confidence) -> list[str]:
    """Return how many answers are right on corpora that were not trained on, by the share that is answered."""
    corpora = ", ".join(f"{count} utterances of {name}" for name, count in confidence.corpora.items())
    lines = [
        "## How far to trust an answer",
        "",
        f"Measured on {corpora}; each corpus was answered by a model of the same recipe that had heard nothing of it, "
        "and weighs the same. Accuracy by the share of utterances that is answered (`--answered`):",
        "",
        f"| | {' | '.join(f'{share:.0%}' for share in SHOWN_SHARES)} |",
        "|---" * (len(SHOWN_SHARES) + 1) + "|",
    ]
    for state, curve in confidence.states.items():
        values = (f"{np.interp(share, curve.answered, curve.accuracy):.3f}" for share in SHOWN_SHARES)
        lines.append(f"| {_STATES[state]} | {' | '.join(values)} |")
    return [*lines, ""]


def _source(entry: InputEntry) -> str:
    """Name an input's frontend, and its encoder with its terms."""
    frontend = entry.frontend
    if "name" not in frontend:
        return str(frontend["kind"])
    return f"{frontend['kind']}: {frontend['name']}, layer {frontend.get('layer')} ({frontend.get('licence')})"


def _folds(result: Mapping[str, Any]) -> list[str]:
    folds = result.get("folds") or {}
    rows = [f"| {name} | {fold['wa']:.3f} | {fold['ua']:.3f} | {fold['wf1']:.3f} |" for name, fold in folds.items()]
    return ["| held out | WA | UA | WF1 |", "|---|---|---|---|", *rows, ""] if rows else []


def _confusion(labels: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Return recalls and confusion, a row for each true emotion."""
    lines = [f"| emotion | recall | taken for {' | '.join(labels)} |", "|---|---|" + "---|" * len(labels)]
    for label, row in zip(labels, result["confusion"], strict=True):
        recall = result["recall"].get(label)
        lines.append(f"| {label} | {'-' if recall is None else f'{recall:.3f}'} | {' | '.join(map(str, row))} |")
    return [*lines, ""]
