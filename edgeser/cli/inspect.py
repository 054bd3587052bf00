"""Show what is in a bundle: model, inputs, accuracies, files. Opening it verifies every file.

example:
  edgeser inspect model.edgeser
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgeser.cli.options import add_json_option, print_json
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.recognizer import default_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, help="a .edgeser file or folder; the default bundle")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    bundle = Bundle.open(args.bundle or default_bundle())
    manifest = bundle.manifest
    if args.json:
        print_json({"path": str(bundle.path), "sha256": bundle.sha256, **json.loads(manifest.to_json())})
        return 0
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{manifest.name} {manifest.version}   {bundle.path}")
    print(f"  sha256     {bundle.sha256}   every file verified")
    print(f"  model      {manifest.model.family}, {manifest.model.preset}, {manifest.precision}, {size / 1e6:.1f} MB")
    print(f"  emotions   {', '.join(manifest.labels)}")
    for name, entry in manifest.inputs.items():
        options = ", ".join(f"{k} {v}" for k, v in entry.frontend.items() if k != "kind")
        print(f"  {name:<10} {entry.length} x {entry.dim}   {entry.frontend['kind']} ({options})")
    for protocol, result in manifest.metrics.items():
        print(f"  accuracy   WA {result['wa']:.3f}   UA {result['ua']:.3f}   {protocol}")
    for report in manifest.provenance.get("parity", []):
        print(
            f"  parity     {report['graph']}: logits within {report['max_logit_difference']:.1e} of PyTorch "
            f"on {report['utterances']} utterances"
        )
    print(f"  licence    {manifest.provenance.get('licence', 'not stated')}")
    for path, file in manifest.files.items():
        print(f"  {file.bytes:>12,}  {path}")
    return 0
