"""Build every engine that this device can have for a bundle, compare each with the golden vectors, and time it.

Nothing is kept: `edgeser build` makes what the Runtime uses. It takes minutes, on a small Jetson many. Exit status 0
when every engine that was run is right, 1 otherwise. The JSON holds what `edgeser doctor` says too, and is what to send
when something does not work.

examples:
  edgeser selftest
  edgeser selftest model.edgeser model.int8.edgeser --json report.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from edgeser import __version__
from edgeser.cli.options import positive, show
from edgeser.export_tools.building.isolated import Limits
from edgeser.export_tools.building.trials import Trial, try_engines
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.doctor import examine
from edgeser.runtime.files import check_file, write_text
from edgeser.runtime.recognizer import default_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="*", type=Path, help=".edgeser files or folders; the default bundle")
    parser.add_argument("--timeout-s", type=positive, default=3600, metavar="S", help="for one graph (3600)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it all into a file")


def run(args: argparse.Namespace) -> int:
    if args.json is not None:
        check_file(args.json)
    bundles = [Bundle.open(path) for path in args.bundles or [default_bundle()]]
    report: dict[str, Any] = {"edgeser": __version__, "device": [], "bundles": []}
    failed = False
    for bundle in bundles:
        name = f"{bundle.manifest.name} {bundle.manifest.version}"
        show(f"{name}, {bundle.manifest.precision}")
        print(HEAD, flush=True)
        trials = []
        for trial in try_engines(bundle, _progress, Limits(args.timeout_s)):
            trials.append(trial)
            print(line(trial), flush=True)
        failed |= any(trial.failed for trial in trials)
        report["bundles"].append({"name": name, "trials": [dataclasses.asdict(trial) for trial in trials]})
    report["device"] = [dataclasses.asdict(check) for check in examine(bundles[0].path)]
    if args.json is not None:
        write_text(args.json, json.dumps(report, indent=2))
        show(f"wrote {args.json}")
    return 1 if failed else 0


HEAD = (
    f"{'engine':<13}{'graph':<8}{'lowering':<10}{'precision':<10}{'build s':>8}{'MB':>7}{'golden':>10}"
    f"{'p50 ms':>9}{'p95 ms':>9}"
)


def line(trial: Trial) -> str:
    """Return a trial as a row under `HEAD`; what is wrong with it follows."""
    golden = "-" if trial.difference is None else f"{trial.difference:.1e}"
    p50, p95 = ("-", "-") if trial.latency is None else (f"{trial.latency.p50_ms:.2f}", f"{trial.latency.p95_ms:.2f}")
    row = (
        f"{trial.engine:<13}{trial.graph:<8}{trial.lowering:<10}{trial.precision:<10}{trial.build_s:>8.1f}"
        f"{trial.size_mb:>7.1f}{golden:>10}{p50:>9}{p95:>9}"
    )
    return f"{row}  {'FAILED: ' if trial.failed else ''}{trial.problem}".rstrip()


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:110]}", end="\r", file=sys.stderr, flush=True)
