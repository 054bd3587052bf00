"""From recordings to a file of rows, through kills and power cuts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import sync_path, writing
from edgeser.runtime.normalization import NONE
from edgeser.runtime.scoring.jobs import Job
from edgeser.runtime.scoring.journal import Journal, derived_key, journal_path, key_of
from edgeser.runtime.scoring.means import Means, Shifted
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
    on_measured: Callable[[int], None] | None = None,
) -> Summary:
    """Score recordings into a file, in their order; a run that was cut off goes on where it was.

    Every row goes to a journal beside the file first. When all are there the file is written, whole or not at all; the
    journal stays. Called again with the same `out`, after a kill, a power cut or a run that finished, only what is new
    is scored: recordings without a row, those whose file has another size or time of last change, and those that
    failed. Recordings may have come or gone meanwhile: the file has the rows of `recordings`.

    With `normalize`, see `Setup`, the means of all recordings are found out before any is answered, and kept in the
    journal too. When recordings come or go, what is taken out of the rows is another: then all are answered again.

    Args:
        recordings: Their ids are unique.
        out: A `.jsonl`, `.csv` or `.parquet` file.
        scorer: What scores them; see `open_scorer`.
        restart: Throw away what earlier runs have left.
        on_start: Called once, before the first row, with the number of recordings that were done before.
        on_row: Called with each row as it gets known.
        on_measured: Called with the number of recordings whose means were found out since it was called before.

    Raises:
        InputError: Ids repeat, `out` cannot be a file of rows, a speaker is not known whose mean is asked for, or its
            journal is of a run with another bundle, engine, ASR, version or `normalize` that did not finish.
        MissingDependencyError: `.parquet` without PyArrow.
        EdgeSerError: The disk is full, for example; rows that were there stay.
    """
    check_format(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder, expected a file name")
    _check_ids(recordings)
    plan = scorer.identity.plan
    plan.check(recordings)
    with Journal(journal_path(out), scorer.identity.header(), restart) as journal:
        work = _Work(recordings, scorer, journal)
        work.measure(on_measured or (lambda count: None))
        keys = {recording.id: work.key(recording) for recording in recordings}
        todo = [recording for recording in recordings if keys[recording.id] not in journal]
        resumed = len(recordings) - len(todo)
        if resumed:
            log.info("%s: %d of %d recordings were done before", journal.path, resumed, len(recordings))
        if on_start:
            on_start(resumed)
        for recording, row in work.answered(todo):
            journal.append(keys[recording.id], row)
            if on_row:
                on_row(row)
        tally = _write(keys, journal, out, scorer.identity.labels)
        journal.finish(keys, work.mean_keys())
    return Summary(tally.total, tally.failed, resumed, tally.answers)


class _Work:
    """The recordings of a run, and what its journal has of them.

    The key of an answer stands also for what was taken out of its rows: one that was made with another mean is asked
    for no more.
    """

    def __init__(self, recordings: Sequence[Recording], scorer: Scorer, journal: Journal) -> None:
        self._recordings = recordings
        self._scorer = scorer
        self._journal = journal
        self._plan = scorer.identity.plan
        self._means = Means(self._plan)
        self._files = {recording.id: key_of(recording) for recording in recordings}

    def measure(self, on_measured: Callable[[int], None]) -> None:
        """Find out the means that the journal has not, where there are two passes."""
        if not self._plan.has_two_passes:
            return
        todo = [recording for recording in self._recordings if self._mean_key(recording) not in self._journal]
        on_measured(len(self._recordings) - len(todo))
        for recording, row in self._scorer.rows(todo, Job.MEAN):
            self._journal.append(self._mean_key(recording), row)
            on_measured(1)
        for recording in self._recordings:  # in their order, and as they were written
            self._means.add(recording, self._journal.row(self._mean_key(recording)))

    def key(self, recording: Recording) -> bytes:
        """Return the key of a recording's answer."""
        file = self._files[recording.id]
        return derived_key(file, self._means.digest(recording)) if self._plan.has_two_passes else file

    def answered(self, todo: Sequence[Recording]) -> Iterator[tuple[Recording, Row]]:
        """Answer recordings; those that could not be measured have failed already."""
        if self._plan.normalize == NONE:
            yield from self._scorer.rows(todo)
            return
        left = todo
        if self._plan.has_two_passes:
            left = []
            for recording in todo:
                row = self._journal.row(self._mean_key(recording))
                if "error" in row:
                    yield recording, row
                else:
                    left.append(recording)
        yield from self._scorer.rows(Shifted(left, self._means))

    def mean_keys(self) -> list[bytes]:
        """Return the keys of the means."""
        return [self._mean_key(recording) for recording in self._recordings] if self._plan.has_two_passes else []

    def _mean_key(self, recording: Recording) -> bytes:
        return derived_key(self._files[recording.id], b"mean")


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
