"""Figures of an evaluation: confusion, sessions, what an answer came from; as PNG and as one HTML page.

Those of a calibration are in `edgeser.figures.calibration`, which needs the libraries that calibrating needs.
"""

from edgeser.figures.charts import answered_figure, confusion_figure, sessions_figure
from edgeser.figures.explanation import Explanation, explain, explanation_figure
from edgeser.figures.report import Report, check_report, write_report

__all__ = [
    "Explanation",
    "Report",
    "answered_figure",
    "check_report",
    "confusion_figure",
    "explain",
    "explanation_figure",
    "sessions_figure",
    "write_report",
]
