"""Turn a pretrained encoder into a frontend that runs on the device without PyTorch.

MODEL is a local transformers folder (wav2vec2, HuBERT, WavLM, Whisper, BERT, RoBERTa), a CTranslate2 Whisper folder, a
wav2vec 1.0 checkpoint of fairseq, or an encoder whose weights ship in a Python package: whisper-tiny.en,
whisper-base, minilm-l6-v2. Nothing is written unless the graph's rows agree with PyTorch's.

examples:
  edgeser export-encoder whisper-tiny.en --layer 1+2+3 -o encoders/whisper
  edgeser export-encoder whisper-base --layer 3 --windows 100 150 200 300 460 -o encoders/quick
  edgeser export-encoder whisper-base --layer 3 --beside whisper-tiny.en:2+3 -o encoders/both
  edgeser export-encoder whisper-tiny.en --layer 3 -o encoders/whisper --recogniser words
  edgeser export-encoder whisper-tiny.en --windows 100 150 200 300 460 --recogniser words
  edgeser export-encoder minilm-l6-v2 --layer 4 --weights int8 -o encoders/minilm
  edgeser export-encoder models/wavlm-base-plus --layer 6 -o encoders/wavlm
  edgeser export-encoder minilm-l6-v2 --pool mean -o encoders/line
  edgeser export-encoder models/bert-base-uncased --pool start -o encoders/bert
  edgeser train --corpus manifest:corpus.csv --audio-encoder encoders/whisper --out runs/ks
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeser.cli.options import positive, show
from edgeser.export_tools.encoders.export import EncoderOptions, export_encoder
from edgeser.export_tools.encoders.storage import FORMS
from edgeser.export_tools.recogniser.folder import write_recogniser
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends.onnx_encoder import POOLS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model's folder or checkpoint, or a packaged encoder's name")
    parser.add_argument("-o", "--out", type=Path, help="folder of the frontend")
    parser.add_argument(
        "--recogniser",
        type=Path,
        metavar="FOLDER",
        help="of Whisper: also export what hears the words, for `edgeser export --recogniser`. With -o it reads the "
        "last hidden state of that same encoder; without, it brings one, for a model that hears with another",
    )
    parser.add_argument("--language", default="en", help="of the words that the recogniser hears (en)")
    parser.add_argument(
        "--layer",
        default="last",
        help="a hidden layer's number, last, several side by side (1+2+3), weights of a sum of all layers from 0 on "
        "(0.1,0.6,0.3), or learned: the checkpoint's own layer_weights (last)",
    )
    parser.add_argument("--length", type=positive, help="rows: 460 of speech, 20 of text; with --pool, tokens: 64")
    parser.add_argument(
        "--pool",
        choices=POOLS,
        help="one row for the whole line: the start token's (BERT's CLS), or the mean over its tokens (MiniLM)",
    )
    parser.add_argument(
        "--weights",
        default="lossless",
        choices=FORMS,
        help="how weights are stored: half precision where nothing is lost, all in half precision, or INT8 (lossless)",
    )
    parser.add_argument(
        "--pause-db",
        type=float,
        metavar="DB",
        help="of speech: leave out rows so far under the loudest one of an utterance, for example 30; none",
    )
    parser.add_argument(
        "--level-db",
        type=float,
        nargs="+",
        metavar="DB",
        help="of speech: bring an utterance between these two levels, dB under full scale, before it is heard, for "
        "example -32 -20; or to one, for example -26; none",
    )
    parser.add_argument(
        "--beside",
        metavar="MODEL:LAYER",
        help="of speech: another encoder whose rows stand beside, for example whisper-tiny.en:2+3; none",
    )
    parser.add_argument(
        "--windows",
        type=positive,
        nargs="+",
        default=(),
        metavar="ROWS",
        help="of Whisper: an utterance is padded to the shortest of these that holds it, so that short ones cost less, "
        "for example 100 150 200 300 460; all cost what the longest costs",
    )
    parser.add_argument("--name", help="the encoder's name; the folder's")
    parser.add_argument("--licence", help="attribution and terms of the weights")


def _levels(given: list[float] | None) -> tuple[float, float] | None:
    if given is None:
        return None
    if len(given) > 2:
        raise InputError(f"--level-db: got {len(given)} levels, expected one, or the lowest and the highest")
    return given[0], given[-1]


def run(args: argparse.Namespace) -> int:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if args.out is None and args.recogniser is None:
        raise InputError("--out: got none, expected a folder for the frontend, or --recogniser and one for that")
    options = EncoderOptions(
        args.model,
        args.out or args.recogniser,
        args.layer,
        args.length,
        args.weights,
        args.name,
        args.licence,
        args.pool,
        args.pause_db,
        _levels(args.level_db),
        args.beside,
        tuple(args.windows),
        gives_hidden=args.out is not None and args.recogniser is not None,
    )
    if args.out is not None:
        _export_frontend(options)
    if args.recogniser is not None:
        write_recogniser(options, args.recogniser, args.language)
        show(f"wrote {args.recogniser}")
    return 0


def _export_frontend(options: EncoderOptions) -> None:
    frontend, difference = export_encoder(options)
    described = frontend.options()
    print(
        f"{described['name']} ({described['architecture']}), layer {described['layer']}: "
        f"{frontend.length} x {frontend.dim}"
    )
    print(f"rows within {difference:.1e} standard deviations of PyTorch's")
    show(f"wrote {options.out}")
