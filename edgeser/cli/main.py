"""Entry point of the `edgeser` command."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from edgeser.runtime.errors import BundleError, EdgeSerError, InputError, MissingDependencyError

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
    "calibrate": "turn a floating-point bundle into an INT8 bundle",
}

_USAGE_ERRORS = (InputError, BundleError, MissingDependencyError)
_EXTRAS = {
    **dict.fromkeys(("torch", "lightning", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxsim", "transformers"), "export"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 2 for bad usage or input, with one line on stderr; 1 for a failure; 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else ""
    if command not in COMMANDS:
        return _overview(command)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        module = importlib.import_module(f"edgeser.cli.{command.replace('-', '_')}")
        parser = argparse.ArgumentParser(
            prog=f"edgeser {command}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        status: int = module.run(parser.parse_args(arguments[1:]))
        return status
    except _USAGE_ERRORS as error:
        return _report(error, 2)
    except EdgeSerError as error:
        return _report(error, 1)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        return _report(MissingDependencyError(error.name, _EXTRAS[error.name], f"edgeser {command}"), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\nedgeser {command}: interrupted", file=sys.stderr)
        return 130


def _report(error: Exception, status: int) -> int:
    print(f"edgeser: {error}", file=sys.stderr)
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
