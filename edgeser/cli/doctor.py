"""Check this device: libraries, engines, the default bundle against its golden vectors.

Exit status 0 when everything that is needed works, 1 otherwise, 2 when the bundle is missing or damaged.

example:
  edgeser doctor
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from edgeser.cli.options import add_json_option, print_json
from edgeser.runtime.doctor import examine
from edgeser.runtime.errors import BundleError
from edgeser.runtime.names import escaped

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
            print(f"{_MARKS[check.good]:<5}{escaped(check.name):<20}{escaped(check.detail)}")
    wrong = [check for check in checks if check.good is False]
    bundle = next((check for check in wrong if check.name == "bundle"), None)
    if bundle is not None:
        raise BundleError(bundle.detail)
    if wrong:
        print(f"edgeser doctor: not as it should be: {', '.join(check.name for check in wrong)}", file=sys.stderr)
    return 1 if wrong else 0
