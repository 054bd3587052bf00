"""From recordings to a file of rows, through kills and power cuts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import sync_path, writing
from edgeser.runtime.scoring.journal import Journal, journal_path, key_of
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row, RowWriter, Tally, check_format
from edgeser.runtime.scoring.scorers import InProcess, Scorer, Setup
from edgeser.runtime.scoring.workers import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What is in a file of rows.

    Attributes:
        total: Rows.
        failed: Rows with an error.
        resumed: Rows of earlier runs.
        answers: How often which emotion (first) was answered with which (second), where the true one is known.
    """

    total: int
    failed: int
    resumed: int
    answers: Mapping[tuple[str, str], int]


def open_scorer(setup: Setup | None = None, workers: int = 0, batch_size: int = 8) -> Scorer:
    """Open what scores: this process, or with `workers` above 0 as many others."""
    return Workers(setup, workers, batch_size) if workers else InProcess(setup, batch_size)


def score_to_file(
    recordings: Sequence[Recording],
    out: Path,
    scorer: Scorer,
    *,
    restart: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Summary:
    """Score recordings into a file, in their order; a run that was cut off goes on where it was.

    Every row goes to a journal beside the file first. When all are there the file is written, whole or not at all; the
    journal stays. Called again with the same `out`, after a kill, a power cut or a run that finished, only what is new
    is scored: recordings without a row, those whose file has another size or time of last change, and those that
    failed. Recordings may have come or gone meanwhile: the file has the rows of `recordings`.

    Args:
        recordings: Their ids are unique.
        out: A `.jsonl`, `.csv` or `.parquet` file.
        scorer: What scores them; see `open_scorer`.
        restart: Throw away what earlier runs have left.
        on_start: Called once, before the first row, with the number of recordings that were done before.
        on_row: Called with each row as it gets known.

    Raises:
        InputError: Ids repeat, `out` cannot be a file of rows, or its journal is of a run with another bundle, engine,
            ASR or version that did not finish.
        MissingDependencyError: `.parquet` without PyArrow.
        EdgeSerError: The disk is full, for example; rows that were there stay.
    """
    check_format(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder, expected a file name")
    _check_ids(recordings)
    with Journal(journal_path(out), scorer.identity.header(), restart) as journal:
        keys = {recording.id: key_of(recording) for recording in recordings}
        todo = [recording for recording in recordings if keys[recording.id] not in journal]
        resumed = len(recordings) - len(todo)
        if resumed:
            log.info("%s: %d of %d recordings were done before", journal.path, resumed, len(recordings))
        if on_start:
            on_start(resumed)
        for recording, row in scorer.rows(todo):
            journal.append(keys[recording.id], row)
            if on_row:
                on_row(row)
        tally = _write(keys, journal, out, scorer.identity.labels)
        journal.finish(keys)
    return Summary(tally.total, tally.failed, resumed, tally.answers)


def _write(keys: Mapping[str, bytes], journal: Journal, out: Path, labels: Sequence[str]) -> Tally:
    tally = Tally()
    with writing(out), RowWriter(out, labels) as writer:
        for key in keys.values():
            row = journal.row(key)
            writer.write(row)
            tally.add(row)
    with writing(out):
        sync_path(out.parent)  # the new name, before the journal says that it is there
    return tally


def _check_ids(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise InputError("score: got no recordings, expected at least one")
    if len({recording.id for recording in recordings}) < len(recordings):
        name, times = Counter(recording.id for recording in recordings).most_common(1)[0]
        raise InputError(f"score: id {name!r} stands {times} times, expected once: rename, or score them apart")
