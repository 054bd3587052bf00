"""Run a whole table from a TOML file: train every row on every fold, write the table and its figure.

DIR gets table.md, table.csv and figure.png, written anew with every row that gets done, the runs themselves in runs/
and what each job wrote in logs/. The same command goes on where it was stopped. A fold that fails is named and the
others go on; the status is then 1, and the next run tries it again. Ready-made files are in experiments/;
docs/experiments.md describes their keys.

examples:
  edgeser experiment experiments/proxy/families.toml --out results/families --jobs 2
  edgeser experiment experiments/iemocap/dropformer.toml --corpus iemocap:IEMOCAP_full_release --out results/dropformer
  edgeser experiment experiments/iemocap/dropformer.toml --out results/dropformer --rows dropformer,w-o-tdm --dry-run
"""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

from edgeser.cli.options import (
    add_corpus_option,
    add_json_option,
    add_strict_option,
    add_test_corpus_option,
    comma_separated,
    corpus_words,
    positive,
    print_json,
    show,
)
from edgeser.corpora import as_test_only, recognise_corpus, spec_list
from edgeser.experiments.plan import Plan, make_plan
from edgeser.experiments.reading import read_experiment
from edgeser.experiments.run import FIGURE, TABLE, VALUES, Settings
from edgeser.experiments.run import run as run_plan
from edgeser.experiments.table import plain
from edgeser.figures import check_report
from edgeser.runtime.files import check_folder

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the experiment")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the table and its runs")
    add_corpus_option(parser, "other corpora than the file's")
    add_test_corpus_option(parser)
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="folds trained at the same time (1)")
    parser.add_argument("--threads", type=positive, metavar="T", help="CPU threads of each job; the cores, shared")
    parser.add_argument(
        "--rows", type=comma_separated, default=(), metavar="A,B", help="train only these rows, named as --dry-run does"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file and print the jobs, train nothing")
    add_strict_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    check_folder(args.out)
    experiment = read_experiment(args.file)
    corpora = [*spec_list(args.corpus or experiment.corpus), *map(as_test_only, args.test_corpus)]
    experiment = experiment.with_corpus([recognise_corpus(one) for one in corpora])
    plan = make_plan(experiment, args.out, args.rows)
    if args.dry_run:
        print_json(_jobs(plan)) if args.json else print(_listing(plan))
        return 0
    check_report(args.out)
    outcome = run_plan(plan, Settings(args.jobs, args.threads, command_line(args), args.strict))
    if args.json:
        print_json({**plain(outcome.table), "failures": list(outcome.failures)})
    else:
        show((args.out / TABLE).read_text(encoding="utf-8"))
    log.info("wrote %s, %s and %s in %s", TABLE, VALUES, FIGURE, args.out)
    return 1 if outcome.failures else 0


def command_line(args: argparse.Namespace) -> str:
    """Return the command that these arguments were, without what changes no result."""
    words = ["edgeser", "experiment", str(args.file), "--out", str(args.out)]
    words += corpus_words(args.corpus)
    words += [word for spec in args.test_corpus for word in ("--test-corpus", spec)]
    words += ["--rows", ",".join(args.rows)] if args.rows else []
    return shlex.join(words)


def _jobs(plan: Plan) -> list[dict[str, object]]:
    return [
        {"row": job.row.slug, "name": job.row.name, "seed": job.seed, "fold": job.fold, "done": job.is_done}
        for job in plan.jobs
        if job.row.slug in plan.chosen
    ]


def _listing(plan: Plan) -> str:
    jobs = [job for job in plan.jobs if job.row.slug in plan.chosen]
    width = max(len(job.row.slug) for job in jobs)
    lines = [f"{plan.experiment.title}: {plan.corpus}", ""]
    for job in jobs:
        state = "done" if job.is_done else "to train"
        lines.append(f"{job.row.slug:<{width}}  seed {job.seed}  fold {job.fold:<10}  {state}")
    return "\n".join([*lines, "", f"{len(plan.todo)} of {len(jobs)} folds to train"])
