"""Show a stream on a web page: what is said, which words mattered, and the emotion over time.

examples:
  edgeser serve                                    the default microphone, on http://127.0.0.1:8765/
  edgeser serve --wav meeting.flac --real-time
  edgeser serve --host 0.0.0.0                     for other machines too; prints an address with a token

The token of --host can be chosen in the environment variable EDGESER_TOKEN. The page is not encrypted: on a network
that others share, put a server with TLS in front of it.
"""

from __future__ import annotations

import argparse
import os
import threading

from edgeser.cli.options import add_runtime_options, load_runtime
from edgeser.cli.sources import add_stream_options, open_source, opened_stream, report_losses
from edgeser.runtime.errors import EdgeSerError
from edgeser.web import WebView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8765, help="TCP port (8765); 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; this machine only by default")
    add_stream_options(parser)
    add_runtime_options(parser)


def run(args: argparse.Namespace) -> int:
    source = open_source(args)
    with load_runtime(args) as runtime, opened_stream(runtime, args) as stream:
        manifest = runtime.bundle.manifest
        title = f"{manifest.name}, {runtime.engine.name}, words by {runtime.asr.name}"
        token = os.environ.get("EDGESER_TOKEN")
        view = WebView(runtime.labels, title, lambda: stream.activity, args.port, args.host, token)
        try:
            stream.capture(source)
            print(f"{view.url}  (Ctrl-C ends)", flush=True)
            try:
                for event in stream:
                    view.show(event)
            except EdgeSerError as error:
                view.end(str(error))
                raise
            view.end()
            report_losses(stream.stats)
            print("the audio has ended; the page stays until Ctrl-C", flush=True)
            threading.Event().wait()
        finally:
            view.close()
    return 0
