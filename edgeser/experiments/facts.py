"""What a reader of an experiment's table should know of how its figures came about."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from edgeser import __version__
from edgeser.experiments.plan import Plan
from edgeser.experiments.results import read_costs
from edgeser.training.run_folder import read_run


def facts(plan: Plan, command: str) -> dict[str, str]:
    """Return name and text of each fact, in the order in which the table shows them."""
    experiment = plan.experiment
    folds = list(dict.fromkeys(job.fold for job in plan.jobs))
    seeds = list(dict.fromkeys(str(job.seed) for job in plan.jobs))
    shared = _shared([row.options for row in experiment.trained])
    recipe = _shared([row.recipe for row in experiment.trained])
    devices = {read_costs(job.folder)[0] for job in plan.jobs} - {""}
    found = {
        "reproduces": experiment.source,
        "corpus": plan.corpus,
        "protocol": f"{experiment.protocol}, folds {', '.join(folds)}",
        "repeats": f"{experiment.repeats} (seed {', '.join(seeds)})",
        "options of all rows": _listed(shared),
        "recipe of all rows": f"{_listed(recipe)}; all else by default".removeprefix("; "),
        "versions": ", ".join(sorted(_versions(plan))) or f"edgeser {__version__}",
        "device (p50 ms)": ", ".join(sorted(devices)),
        "command": f"`{command}`" if command else "",
    }
    return {name: text for name, text in found.items() if text}


def _versions(plan: Plan) -> set[str]:
    """Return the versions that the runs say they were trained with."""
    found = {f"edgeser {__version__}"}
    for out in {job.options.out for job in plan.jobs}:
        run = read_run(out)
        found |= {f"{name} {version}" for name, version in run.versions.items()} if run else set()
    return found


def _shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all tables have alike."""
    first, *others = tables
    return {name: value for name, value in first.items() if value and all(o.get(name) == value for o in others)}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} {_text(inner)}' for name, inner in value.items())}}}"
    if isinstance(value, list | tuple | frozenset):
        return "+".join(map(_text, value))
    # A folder on this machine says less than its name.
    return PurePath(value).name if isinstance(value, os.PathLike) else str(value)
