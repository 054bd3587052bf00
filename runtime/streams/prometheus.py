"""A stream's counters for Prometheus to fetch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgeser.runtime.errors import InputError
from edgeser.runtime.owner import OwnerProcess
from edgeser.runtime.streams.stats import BUCKETS_MS, StreamStats


def prometheus_text(stats: StreamStats) -> str:
    """Return counters and histograms in Prometheus' text format 0.0.4."""
    lines = []
    for name, value in vars(stats).items():
        if name == "stages":
            continue
        metric = f"edgeser_{name.removesuffix('_s')}{'_seconds' if name.endswith('_s') else ''}_total"
        lines += [f"# TYPE {metric} counter", f"{metric} {value}"]
    lines.append("# TYPE edgeser_stage_seconds histogram")
    for stage, histogram in stats.stages.items():
        seen = 0
        for bound, count in zip((*BUCKETS_MS, float("inf")), histogram.counts, strict=True):
            seen += count
            le = "+Inf" if bound == float("inf") else f"{bound / 1e3:g}"
            lines.append(f'edgeser_stage_seconds_bucket{{stage="{stage}",le="{le}"}} {seen}')
        lines.append(f'edgeser_stage_seconds_sum{{stage="{stage}"}} {histogram.sum_ms / 1e3:g}')
        lines.append(f'edgeser_stage_seconds_count{{stage="{stage}"}} {seen}')
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Serves `/metrics` in a thread of its own, until it is closed.

    Args:
        stats: Gives the counters, for example `lambda: stream.stats`.
        port: TCP port; 0 takes a free one.
        host: Address to listen on; by default only this machine can ask.

    Attributes:
        port: The port that was taken.

    Raises:
        InputError: The port is taken, or not allowed.
    """

    def __init__(self, stats: Callable[[], StreamStats], port: int, host: str = "127.0.0.1") -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(stats))
        except (OSError, OverflowError) as error:
            raise InputError(f"metrics: cannot listen on {host}:{port} ({error}): choose another port") from error
        self._server.daemon_threads = True
        self._owner = OwnerProcess("metrics")
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; in a process that was forked, only let go of the port."""
        if not self._owner.is_here:
            self._server.server_close()
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1)


def _handler(stats: Callable[[], StreamStats]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = prometheus_text(stats()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass  # a line for each fetch would drown the stream's own

    return Handler
