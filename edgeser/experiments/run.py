"""Running an experiment: what is missing is trained, and the table written anew with every row that gets done."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from edgeser.experiments.baselines import WARM
from edgeser.experiments.facts import facts
from edgeser.experiments.plan import Job, Plan, prepare
from edgeser.experiments.pool import Pool, Task
from edgeser.experiments.results import RowResult, is_done, read_costs, read_folds
from edgeser.experiments.spec import COSTS, Row
from edgeser.experiments.table import Table, comma_separated, markdown
from edgeser.figures.experiment import table_figure
from edgeser.figures.style import png
from edgeser.runtime.files import making, write_together, writing
from edgeser.runtime.names import start_logging
from edgeser.training.baseline_run import fit_baseline
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, HeldOut
from edgeser.training.options import TrainOptions

log = logging.getLogger(__name__)

TABLE, VALUES, FIGURE = "table.md", "table.csv", "figure.png"
_LOGS = "logs"


@dataclass(frozen=True)
class Settings:
    """How an experiment runs here; nothing of it changes a result.

    Attributes:
        jobs: Folds trained at the same time.
        threads: CPU threads of each; `None` shares the cores among the jobs.
        command: What the table says that it was made by.
        strict: Whether a corpus with utterances that cannot be used is refused.
    """

    jobs: int = 1
    threads: int | None = None
    command: str = ""
    strict: bool = False

    @property
    def threads_each(self) -> int:
        """CPU threads of each job."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.jobs)


@dataclass(frozen=True)
class Outcome:
    """How a run of an experiment ended.

    Attributes:
        table: What there is.
        failures: One line for each job that failed.
    """

    table: Table
    failures: Sequence[str]


def run(plan: Plan, settings: Settings) -> Outcome:
    """Train what is missing, measure, and write `table.md`, `table.csv` and `figure.png`.

    A job that fails or crashes is logged, and the others go on; the next run tries it again. Whatever ends a run, the
    next one goes on from the last whole epoch of each fold.

    Raises:
        InputError: An encoder is not usable, or a model does not go with it.
        MissingDependencyError: matplotlib is not installed.
    """
    prepare(plan, settings.strict)
    with writing(plan.out), making(plan.out / _LOGS):
        table = write(plan, settings)
    todo = plan.todo
    failures: list[str] = []
    with _kept_when_stopped(plan, settings), Pool(settings.jobs) as pool:
        failures += _fit_baselines(pool, plan)
        left = Counter(job.row.slug for job in todo)
        for job, error in _train(pool, plan, settings):
            left[job.row.slug] -= 1
            if error:
                failures.append(f"{job}: {error}")
                log.error("%s: %s (%s)", job, error, _log_file(plan, job))
            if not left[job.row.slug]:
                table = write(plan, settings)
                log.info("%s", _row_line(table, job.row))
        failures += _measure(pool, plan)
    return Outcome(write(plan, settings), failures)


@contextlib.contextmanager
def _kept_when_stopped(plan: Plan, settings: Settings) -> Iterator[None]:
    """Show also the folds of rows that were not done when Ctrl-C came."""
    try:
        yield
    except KeyboardInterrupt:
        write(plan, settings)
        log.info("stopped; the same command goes on from the last whole epoch of each fold")
        raise


def collect(plan: Plan, settings: Settings) -> Table:
    """Return what there is: a line for each row, one more where it also answers with means taken out, the baselines."""
    rows = []
    for row in plan.experiment.rows:
        jobs = plan.jobs_of(row)
        costs = read_costs(jobs[0].folder)[1] if jobs and any(is_done(job.folder) for job in jobs) else {}
        rows.append(RowResult(row, _read(plan, row, PREDICTIONS), len(jobs), costs))
        if any(job.options.recipe.mean_prior for job in jobs):
            warm = dataclasses.replace(row, name=f"{row.name}{WARM}", published={}, is_trained=False)
            rows.append(RowResult(warm, _read(plan, row, RUN_PREDICTIONS), len(jobs)))
    rows += [result for baseline in plan.baselines for result in baseline.results()]
    return Table(plan.experiment, rows, facts(plan, settings.command))


def _read(plan: Plan, row: Row, predictions: str) -> dict[int, dict[str, HeldOut]]:
    jobs = plan.jobs_of(row)
    return {
        seed: read_folds(plan.experiment.options(row, seed, plan.out), _folds(jobs, seed), predictions)
        for seed in _seeds(jobs)
    }


def write(plan: Plan, settings: Settings) -> Table:
    """Write the table and its figure from what there is, each file whole or not at all."""
    table = collect(plan, settings)
    texts = {VALUES: comma_separated(table).encode(), TABLE: markdown(table).encode()}
    write_together(plan.out, {FIGURE: png(table_figure(table)), **texts})
    return table


def train_fold(options: TrainOptions, threads: int) -> None:
    """Train one fold, in a process of its own."""
    import torch

    from edgeser.training.train import train

    start_logging()
    torch.set_num_threads(threads)
    train(options)


def _train(pool: Pool, plan: Plan, settings: Settings) -> Iterator[tuple[Job, str]]:
    """Yield every job with why it failed, empty when it did not."""
    threads = settings.threads_each
    tasks = {Task(train_fold, (job.options, threads), _log_file(plan, job)): job for job in plan.todo}
    chosen = sum(job.row.slug in plan.chosen for job in plan.jobs)
    with (
        logging_redirect_tqdm(),
        tqdm(total=chosen, initial=chosen - len(tasks), desc="folds", unit="fold", disable=None) as bar,
    ):
        for answer in pool.run(tasks):
            bar.update()
            yield tasks[answer.task], answer.error


def _fit_baselines(pool: Pool, plan: Plan) -> list[str]:
    """Fit what of the baselines is not there, seconds each; return failures."""
    tasks = {
        Task(fit_baseline, (one.options, one.options.out), plan.out / _LOGS / f"{one.options.out.name}.log"): one
        for one in plan.baselines
    }
    failures = {tasks[a.task].name: f"{a.error} ({a.task.log})" for a in pool.run(tasks) if a.error}
    for name, failure in failures.items():
        log.error("%s: %s", name, failure)
    return [f"{name}: {failure}" for name, failure in failures.items()]


def _measure(pool: Pool, plan: Plan) -> list[str]:
    """Measure the models of first folds where the table has such columns and they are not known; return failures."""
    columns = [column for column in plan.experiment.columns if column in COSTS]
    jobs = [plan.jobs_of(row)[0] for row in plan.experiment.trained]
    folds = [job.folder for job in jobs if is_done(job.folder) and set(columns) - set(read_costs(job.folder)[1])]
    if not folds or not columns:
        return []
    from edgeser.experiments.measuring import measure_costs  # late: it needs the libraries of the export

    log.info("measuring %d models", len(folds))
    task = Task(measure_costs, (folds, columns), plan.out / _LOGS / "measuring.log")
    failures = [f"measuring: {answer.error}" for answer in pool.run([task]) if answer.error]
    for failure in failures:
        log.error("%s (%s)", failure, task.log)
    return failures


def _log_file(plan: Plan, job: Job) -> Path:
    return plan.out / _LOGS / f"{job.row.slug}-seed-{job.seed}-fold-{job.fold}.log"


def _row_line(table: Table, row: Row) -> str:
    result = next(result for result in table.rows if result.row is row)
    values = ((column, result.value(column)) for column in table.experiment.columns if column not in COSTS)
    reached = "  ".join(f"{column} {value:.3f}" for column, value in values if value is not None)
    return f"{row.name}: {reached or 'nothing'} ({result.done} of {result.wanted} folds)"


def _seeds(jobs: Sequence[Job]) -> list[int]:
    return list(dict.fromkeys(job.seed for job in jobs))


def _folds(jobs: Sequence[Job], seed: int) -> tuple[str, ...]:
    return tuple(job.fold for job in jobs if job.seed == seed)
