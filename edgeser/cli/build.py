"""Build TensorRT engines of a bundle's model and encoders, and keep them where the Runtime finds them.

TensorRT builds for the GPU it runs on: run this on the device, once, and again after an update of the system.
TensorRT-RTX builds ahead of time, on any machine with an x86 processor, for any NVIDIA GPU from Ampere on. Where there
is a GPU each engine is run on the bundle's golden vectors, and one that does not pass them is not kept.

Exit status 0 when there is an engine for every graph; 1 with the reasons, and nothing written, when there is not.

examples:
  edgeser build --target tensorrt
  edgeser build --target tensorrt --precision fp16
  edgeser build model.edgeser --target tensorrt-rtx --capability 8.6 --capability 8.9 -o plans
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from edgeser.cli.options import add_json_option, positive, print_json, show
from edgeser.export_tools.building.build import BuildOptions, build
from edgeser.export_tools.building.isolated import Limits
from edgeser.export_tools.building.library import LIBRARIES
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.errors import EngineError
from edgeser.runtime.manifest import PRECISIONS
from edgeser.runtime.plans import LOWERINGS
from edgeser.runtime.recognizer import default_bundle

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, help="a .edgeser file or folder; the default bundle")
    parser.add_argument("--target", required=True, choices=list(LIBRARIES))
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="fp16 turns what is in FP32 into FP16, in an int8 bundle what is not INT8; for int8 build the bundle that "
        "`edgeser calibrate` makes (the bundle's)",
    )
    parser.add_argument("--max-batch", type=positive, default=8, metavar="N", help="largest batch of the model (8)")
    parser.add_argument("--best-batch", type=positive, default=1, metavar="N", help="batch to be quickest at (1)")
    parser.add_argument(
        "--workspace-mb", type=positive, metavar="MB", help="GPU memory a layer may use; all that there is"
    )
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="C",
        help="tensorrt-rtx: compute capability to build for, for example 8.6; several times for several; all from 8.0",
    )
    parser.add_argument(
        "--lowering",
        default="auto",
        choices=["auto", *LOWERINGS],
        help="the graph to build: with plugins, portable, or portable where plugins do not serve (auto)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder for the plans, to be copied to a device; its own cache"
    )
    parser.add_argument("--timeout-s", type=positive, default=3600, metavar="S", help="for one graph (3600)")
    parser.add_argument("--memory-mb", type=positive, metavar="MB", help="memory the compiler may take; any amount")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    options = BuildOptions(
        target=args.target,
        precision=args.precision,
        lowering=args.lowering,
        max_batch=args.max_batch,
        best_batch=args.best_batch,
        workspace_mb=args.workspace_mb,
        capabilities=tuple(args.capability),
        out=args.out,
        limits=Limits(args.timeout_s, args.memory_mb),
    )
    report = build(Bundle.open(args.bundle or default_bundle()), options, log.info)
    print_json(report.as_dict()) if args.json else show(report.text())
    if report.failure:
        raise EngineError(f"{args.target}: nothing was written: {report.failure}")
    return 0
