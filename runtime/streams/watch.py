"""The stage that notices when another one hangs."""

from __future__ import annotations

import logging
import time

from edgeser.runtime.errors import EngineError
from edgeser.runtime.streams.crew import POLL_S
from edgeser.runtime.streams.flow import Flow

log = logging.getLogger(__name__)


class Watch:
    """Looks for foreign code that has not returned: a recogniser is done without, a model or detector ends the stream.

    Args:
        flow: The stream's stages.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._told: set[tuple[str, float]] = set()

    def run(self) -> None:
        """Work until the stream ends; the loop of a thread."""
        stall_s, listener = self._flow.options.stall_s, self._flow.listener
        while not self._flow.crew.stopping.wait(min(POLL_S, stall_s / 4)):
            busy = dict(self._flow.crew.busy)
            since = listener.busy_since if listener else None
            if since is not None:
                busy["asr"] = since
            for stalled in busy.items():
                if time.monotonic() - stalled[1] >= stall_s and stalled not in self._told:
                    self._told.add(stalled)
                    self._flow.meter.count("stalls")
                    self._stalled(stalled[0])

    def _stalled(self, stage: str) -> None:
        seconds, listener = f"{self._flow.options.stall_s:g} s", self._flow.listener
        if stage == "asr" and listener is not None:
            log.warning("the recogniser has not returned for %s: until it does, the voice alone decides", seconds)
            listener.release(True)
        elif stage == "callback":
            log.warning("on_event has not returned for %s: Events wait, then the oldest are missed", seconds)
        else:
            what = {"vad": "the voice detector", "answer": "the model"}[stage]
            raise EngineError(f"the stream ended: {what} has not returned for {seconds}")
