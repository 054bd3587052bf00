"""What is done with recordings: answering them, or taking the means of their rows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import EdgeSerError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring.recordings import Recording, read_mean, score
from edgeser.runtime.scoring.rows import Row, error_row, head, score_row

_MOST = float(np.finfo(np.float16).max)


class Job(str, Enum):
    """What a scorer does with recordings."""

    ANSWER = "answer"
    """Rows of `score_row`."""
    MEAN = "mean"
    """Rows with `mean`, for `mean_in`."""


def do(
    job: Job,
    runtime: Runtime,
    recordings: Iterable[Recording],
    batch_size: int = 8,
    on_read: Callable[[float], None] | None = None,
    answered: float = 1.0,
) -> Iterator[tuple[Recording, Row]]:
    """Yield every recording with its row, in their order; see `score` for the arguments."""
    if job is Job.MEAN:
        for recording in recordings:
            yield recording, _mean_row(recording, read_mean(runtime, recording, on_read))
    else:
        for scored in score(runtime, recordings, batch_size, on_read, answered):
            yield scored.recording, score_row(scored)


def mean_in(row: Row) -> NDArray[np.float16] | None:
    """Return the mean in a row, `(dim,)`; `None` of a recording without speech, and of one that failed.

    Raises:
        EdgeSerError: The row is damaged.
    """
    text = row.get("mean", "")
    try:
        mean = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
        if not np.isfinite(mean).all():
            raise ValueError("not finite")
    except (ValueError, TypeError) as error:
        raise EdgeSerError(f"{row.get('id')}: the mean of its rows is damaged: start over with --restart") from error
    return mean if mean.size else None


def _mean_row(recording: Recording, mean: NDArray[np.float64] | str | None) -> Row:
    if isinstance(mean, str):
        return error_row(recording, mean)
    # Half precision takes 2.3 KB of 1152 columns, errs by 0.001 of a deviation, and its sums are exact in float64 up to
    # millions of recordings: so their order, and who computed them, changes nothing.
    content = b"" if mean is None else mean.clip(-_MOST, _MOST).astype("<f2").tobytes()
    return {**head(recording), "mean": base64.b64encode(content).decode()}
