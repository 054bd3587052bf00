"""Scoring many recordings: rows for programs to read, and files that are whole or not there."""

from __future__ import annotations

from edgeser.runtime.scoring.jobs import Job, do
from edgeser.runtime.scoring.journal import journal_path
from edgeser.runtime.scoring.means import Plan, normalized, without_mean
from edgeser.runtime.scoring.recordings import Recording, Scored, score
from edgeser.runtime.scoring.rows import FORMATS, Row, RowWriter, Tally, check_format, row_text, score_row
from edgeser.runtime.scoring.run import Summary, open_scorer, score_to_file
from edgeser.runtime.scoring.scorers import Identity, InProcess, Scorer, Setup, pin
from edgeser.runtime.scoring.search import AUDIO_SUFFIXES, Found, find_recordings, search
from edgeser.runtime.scoring.workers import Workers

__all__ = [
    "AUDIO_SUFFIXES",
    "FORMATS",
    "Found",
    "Identity",
    "InProcess",
    "Job",
    "Plan",
    "Recording",
    "Row",
    "RowWriter",
    "Scored",
    "Scorer",
    "Setup",
    "Summary",
    "Tally",
    "Workers",
    "check_format",
    "do",
    "find_recordings",
    "journal_path",
    "normalized",
    "open_scorer",
    "pin",
    "row_text",
    "score",
    "score_row",
    "score_to_file",
    "search",
    "without_mean",
]
