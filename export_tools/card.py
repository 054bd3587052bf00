"""The model card of a bundle."""

from __future__ import annotations

from edgeser.runtime.manifest import Manifest


def model_card(manifest: Manifest, parameters: int) -> str:
    """Return a model card in Markdown: what the model is, was trained on, reaches and must not be used for."""
    provenance = manifest.provenance
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"- Model: {manifest.model.family}, preset {manifest.model.preset}, {parameters:,} parameters, "
        f"{manifest.precision}",
        f"- Emotions: {', '.join(manifest.labels)}",
        *(
            f"- Input {name}: {entry.length} x {entry.dim}, {entry.frontend['kind']}"
            for name, entry in manifest.inputs.items()
        ),
        f"- Trained on: {provenance['corpus']['name']}; held out: {provenance['training'].get('held_out')}",
        f"- Licence: {provenance['licence']}",
        "",
        "## Results",
        "",
    ]
    if manifest.metrics:
        for protocol, result in manifest.metrics.items():
            lines += [f"{protocol}: WA {result['wa']:.3f}, UA {result['ua']:.3f}, WF1 {result['wf1']:.3f}", ""]
            lines += ["| emotion | recall |", "|---|---|"]
            lines += [f"| {label} | {recall:.3f} |" for label, recall in result["recall"].items()]
            lines.append("")
    else:
        lines += ["None were given at export.", ""]
    lines += [
        "## Limits",
        "",
        "The model knows the voices, languages and recording conditions it was trained on, and no others. "
        "It guesses how an utterance sounds, not what a person feels; do not decide about people with it.",
        "",
    ]
    return "\n".join(lines)
