"""Show what is in a bundle: model, inputs, accuracies, files. Opening it verifies every file.

examples:
  edgeser inspect model.edgeser
  edgeser inspect model.edgeser --trusted maker.pub   refuse it unless the maker has signed it
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.cli.options import add_json_option, add_trusted_option, print_json
from edgeser.runtime.adaptation import AdaptationEntry
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.confidence import SHOWN_SHARES, Confidence
from edgeser.runtime.manifest import InputEntry, Manifest
from edgeser.runtime.names import escaped
from edgeser.runtime.recognizer import default_bundle

_LONGEST = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, help="a .edgeser file or folder; the default bundle")
    add_trusted_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    bundle = Bundle.open(args.bundle or default_bundle(), args.trusted)
    if args.json:
        manifest = json.loads(bundle.manifest.to_json())
        signed = None if bundle.signature is None else vars(bundle.signature)
        print_json({"path": str(bundle.path), "sha256": bundle.sha256, "signature": signed, **manifest})
        return 0
    for line in _lines(bundle):
        print(escaped(line))
    return 0


def _lines(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    yield f"{manifest.name} {manifest.version}   {bundle.path}"
    yield f"  sha256     {bundle.sha256}   every file is whole"
    yield f"  origin     {_origin(bundle)}"
    yield f"  model      {manifest.model.family}, {manifest.model.preset}, {manifest.precision}, {size / 1e6:.1f} MB"
    yield f"  emotions   {', '.join(manifest.answers)}"
    if manifest.adaptation is not None:
        yield f"  adapted    {_adapted(manifest.adaptation)}"
    for name, entry in manifest.inputs.items():
        yield f"  {name:<10} {entry.length} x {entry.dim}   {_frontend(entry)}"
    yield from _measured(manifest)
    if manifest.confidence is not None:
        yield from _trusted(manifest.confidence)
    yield f"  licence    {manifest.provenance.get('licence', 'not stated')}"
    for path, file in manifest.files.items():
        yield f"  {file.bytes:>12,}  {path}"


def _origin(bundle: Bundle) -> str:
    if bundle.signature is None:
        return "not checked: hashes tell that it is whole, not who made it; --trusted KEY checks a signature"
    return f"signed with the trusted key {bundle.signature.key}: {bundle.signature.comment}"


def _adapted(entry: AdaptationEntry) -> str:
    clips = ", ".join(f"{count} {label}" for label, count in entry.clips.items())
    prior = entry.prior and f", prior {', '.join(f'{label} {p:.2f}' for label, p in entry.prior.items())}"
    source = f"{entry.source.name} {entry.source.version}, sha256 {entry.source.sha256[:12]}…"
    return f"to {clips}{prior or ''}; from {source}, which has UA {entry.ua['shipped']:.3f} on these clips"


def _trusted(confidence: Confidence) -> Iterator[str]:
    yield f"  confidence measured on {', '.join(f'{n} of {name}' for name, n in confidence.corpora.items())}, unheard"
    for state, curve in confidence.states.items():
        shown = [f"{share:.0%}: {np.interp(share, curve.answered, curve.accuracy):.3f}" for share in SHOWN_SHARES]
        yield f"             {state:<5} right when so many are answered: {', '.join(shown)}"


def _frontend(entry: InputEntry) -> str:
    options = ", ".join(f"{k} {_plain(v)}" for k, v in entry.frontend.items() if k != "kind")
    if entry.mean_prior is not None:
        options += f"{', ' if options else ''}mean_prior {entry.mean_prior:g}"
    return f"{_plain(entry.frontend.get('kind'))} ({options})"


def _measured(manifest: Manifest) -> Iterator[str]:
    """Show accuracies and parity; a bundle may keep anything there, which is then shown as it is."""
    for protocol, result in manifest.metrics.items():
        wa, ua = (result.get(name) if isinstance(result, Mapping) else None for name in ("wa", "ua"))
        if _is_number(wa) and _is_number(ua):
            yield f"  accuracy   WA {wa:.3f}   UA {ua:.3f}   {protocol}"
        else:
            yield f"  metrics    {protocol}: {_plain(result)}"
    reports = manifest.provenance.get("parity", [])
    for report in reports if isinstance(reports, list) else [reports]:
        difference = report.get("max_logit_difference") if isinstance(report, Mapping) else None
        if _is_number(difference):
            on = f"on {_plain(report.get('utterances'))} utterances"
            yield f"  parity     {_plain(report.get('graph'))}: logits within {difference:.1e} of PyTorch {on}"
        else:
            yield f"  parity     {_plain(report)}"


def _is_number(value: Any) -> bool:
    """Whether a value is a number that can be shown with a few digits."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _plain(value: Any) -> str:
    """Return a text as it is, anything else as JSON, and of what is long the beginning."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
