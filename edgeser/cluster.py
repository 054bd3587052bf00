"""Scoring on a cluster: the rows of `edgeser.runtime.scoring`, computed by Ray Data."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import EngineError, InputError, MissingDependencyError
from edgeser.runtime.scoring import Identity, Job, Recording, Row, Scorer, Setup, Workers, pin, row_text

_MOST_BLOCKS = 10_000  # a block is a task, and what is lost when the run is cut off
_SHOWN = 300  # characters of Ray's errors, which are pages
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports to its makers otherwise
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone, and do not warn about it
}


class RayScorer(Scorer):
    """Scores on the actors of a Ray cluster, in the order in which they get done.

    The bundle and the recordings lie under the same paths on every node. This machine loads the Runtime once, to find
    out which engine and ASR all have to use.

    Args:
        setup: How each actor loads its Runtime.
        address: A running cluster, `auto` or `ray://HOST:PORT`; or `local`, which starts one on this machine.
        actors: How many; `None` for one a CPU of the cluster.
        batch_size: Recordings that are scored together.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: There is no cluster at `address`.
    """

    def __init__(
        self, setup: Setup | None = None, address: str = "local", actors: int | None = None, batch_size: int = 8
    ) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray.data.exceptions
        except ImportError as error:
            raise MissingDependencyError("ray", "cluster", "scoring on a cluster") from error
        self._ray: Any = ray
        pinned, self.identity = pin(setup or Setup())
        self._setup = replace(pinned, bundle=pinned.bundle and Path(pinned.bundle).absolute())
        self._batch_size = batch_size
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, address, actors)
        self._actors = actors or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def rows(self, recordings: Sequence[Recording], job: Job = Job.ANSWER) -> Iterator[tuple[Recording, Row]]:
        """See `Scorer.rows`.

        Raises:
            EngineError: The cluster gave up, after some crashes of its actors for example.
        """
        if not recordings:
            return
        data = self._ray.data
        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every stage
        blocks = min(_MOST_BLOCKS, -(-len(recordings) // self._batch_size))
        # Pickled and as JSON, so that Arrow, which Ray moves columns with, has nothing to guess.
        items = [
            {"number": i, "recording": pickle.dumps(replace(recording, path=recording.path.absolute()))}
            for i, recording in enumerate(recordings)
        ]
        scored = data.from_items(items, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(self._setup, self.identity, self._batch_size, job),
            batch_size=self._batch_size,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=min(self._actors, blocks)),
            num_cpus=self._setup.threads,
        )
        try:
            for item in scored.iter_rows():
                recording = recordings[item["number"]]
                yield recording, {**json.loads(item["row"]), "path": str(recording.path)}
        except (self._ray.exceptions.RayError, data.exceptions.SystemException) as error:
            raise EngineError(f"ray: {' '.join(str(error).split())[-_SHOWN:]}") from error

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()


class _Actor:
    """A worker on some node; Ray calls it with batches of columns.

    The worker is a process of its own: Ray starts an actor that crashes again, with the same batch, for ever.
    """

    def __init__(self, setup: Setup, identity: Identity, batch_size: int, job: Job) -> None:
        self._job = job
        self._worker = Workers(setup, 1, batch_size, identity)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        recordings = [pickle.loads(recording) for recording in batch["recording"]]
        rows = {recording.id: row_text(row) for recording, row in self._worker.rows(recordings, self._job)}
        texts = np.array([rows[recording.id] for recording in recordings], dtype=object)
        return {"number": batch["number"], "row": texts}


def _connect(ray: Any, address: str, actors: int | None) -> None:
    options: dict[str, Any] = {"include_dashboard": False, "num_cpus": actors} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:_SHOWN]
        raise InputError(
            f"ray: no cluster at {address!r} ({reason}): expected auto, ray://HOST:PORT or local"
        ) from error
