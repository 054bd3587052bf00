"""Check this device: libraries, engines, the default bundle against its golden vectors.

Exit status 0 when everything that is needed works, 1 otherwise.

example:
  edgeser doctor
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from edgeser.cli.options import add_json_option, print_json
from edgeser.runtime.doctor import examine

_MARKS = {True: "ok", False: "FAIL", None: "-"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="B", help="a .edgeser file or folder; the default bundle")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    checks = list(examine(args.bundle))
    if args.json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{_MARKS[check.good]:<5}{check.name:<20}{check.detail}")
    return 1 if any(check.good is False for check in checks) else 0
