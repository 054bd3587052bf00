"""Entry point of the `edgeser` command."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

from edgeser.cli.failures import drop_stdout, failure, flush_stdout, show_everything
from edgeser.runtime.caches import ensure_home
from edgeser.runtime.names import start_logging

COMMANDS = {
    "demo": "run the default bundle over the example clips",
    "listen": "recognise emotion live: microphone, file or pipe",
    "serve": "show a stream on a web page",
    "score": "recognise emotion in files, folders or a corpus",
    "inspect": "show what is in a bundle",
    "doctor": "check this device: libraries, engines, the default bundle",
    "bench": "measure speed and memory on this device",
    "corpus": "count a corpus: sessions, speakers, emotions, durations",
    "train": "train a model, one per held-out session",
    "experiment": "run a whole table from a file: rows, folds, repeats",
    "evaluate": "accuracies of a run or a bundle",
    "export": "turn a trained model into a bundle",
    "export-encoder": "turn a pretrained encoder into a frontend",
    "build": "build TensorRT engines of a bundle for this device",
    "selftest": "build, compare and time every engine this device can have",
    "adapt": "fit a bundle to one user's voice, from a few labelled clips",
    "calibrate": "turn a floating-point bundle into an INT8 bundle",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 2 for bad usage or input, with one line on stderr; 1 for a failure; 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else ""
    show_everything()
    try:
        try:
            return _run(command, arguments[1:]) if command in COMMANDS else _overview(command)
        finally:
            flush_stdout()
    except BrokenPipeError:
        drop_stdout()
        return 1
    except KeyboardInterrupt:
        print(f"\nedgeser {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        known = failure(error, command)
        if known is None:
            raise  # a fault of ours: the traceback says where
        line, status = known
        print(line, file=sys.stderr)
        return status


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse would swallow that it could not be written."""
        print(self.format_help(), end="", file=file)


def _run(command: str, arguments: Sequence[str]) -> int:
    start_logging()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its font cache
    ensure_home()
    module = importlib.import_module(f"edgeser.cli.{command.replace('-', '_')}")
    parser = _Parser(
        prog=f"edgeser {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    status: int = module.run(parser.parse_args(arguments))
    return status


def _overview(command: str) -> int:
    import edgeser

    if command in ("--version", "-V"):
        print(f"edgeser {edgeser.__version__}")
        return 0
    lines = ["usage: edgeser COMMAND [OPTION ...]", ""]
    lines += [f"  {name:<14} {what}" for name, what in COMMANDS.items()]
    lines += ["", "edgeser COMMAND --help shows a command's options and an example."]
    if command in ("", "-h", "--help"):
        print("\n".join(lines))
        return 0 if command else 2
    print(f"edgeser: got command {command!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
