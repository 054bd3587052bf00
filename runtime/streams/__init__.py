"""From audio that arrives to one Event for each utterance."""

from edgeser.runtime.streams.event import Activity, Event, Words, event_row
from edgeser.runtime.streams.isolated import IsolatedStream
from edgeser.runtime.streams.options import StreamOptions
from edgeser.runtime.streams.prometheus import MetricsServer, prometheus_text
from edgeser.runtime.streams.stats import Histogram, StreamStats
from edgeser.runtime.streams.stream import Stream

__all__ = [
    "Activity",
    "Event",
    "Histogram",
    "IsolatedStream",
    "MetricsServer",
    "Stream",
    "StreamOptions",
    "StreamStats",
    "Words",
    "event_row",
    "prometheus_text",
]
