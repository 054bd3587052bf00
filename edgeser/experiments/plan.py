"""What has to be trained for an experiment, and what lies there already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeser.corpora import Utterance, corpus_identity, make_folds, read_corpus
from edgeser.corpora.splits import ALL
from edgeser.experiments.baselines import Baseline, make_baselines
from edgeser.experiments.spec import Experiment, Row
from edgeser.models import InputSpec, family
from edgeser.runtime.errors import InputError
from edgeser.training.building import check_model, input_specs
from edgeser.training.frontends import compute_features, open_features
from edgeser.training.options import TrainOptions, usable
from edgeser.training.run_folder import find_run


@dataclass(frozen=True)
class Job:
    """One fold of one row with one seed.

    Attributes:
        row: The row.
        seed: Of its recipe.
        options: What trains it; `folds` names its fold alone.
    """

    row: Row
    seed: int
    options: TrainOptions

    @property
    def fold(self) -> str:
        return self.options.folds[0]

    @property
    def folder(self) -> Path:
        """Where the trained fold lies."""
        return self.options.out / f"fold-{self.fold}"

    @property
    def is_done(self) -> bool:
        """Whether it is trained: its description is written last."""
        return (self.folder / "model.json").is_file()

    def __str__(self) -> str:
        return f"{self.row.name}, seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Plan:
    """An experiment on its corpus.

    Attributes:
        experiment: The experiment.
        out: Its folder.
        jobs: Every fold of every seed of every row, in that order.
        chosen: Folders' names of the rows that are to be trained now.
        utterances: All of the corpus.
        corpus: What the corpus is, for people.
        baselines: Logistic regression on the rows that the models get, on the same folds.
    """

    experiment: Experiment
    out: Path
    jobs: Sequence[Job]
    chosen: frozenset[str]
    utterances: Sequence[Utterance]
    corpus: str
    baselines: Sequence[Baseline] = ()

    @property
    def todo(self) -> list[Job]:
        """What is to be trained and is not there."""
        return [job for job in self.jobs if job.row.slug in self.chosen and not job.is_done]

    def jobs_of(self, row: Row) -> list[Job]:
        """Return the jobs of a row."""
        return [job for job in self.jobs if job.row is row]


def make_plan(experiment: Experiment, out: Path, rows: Sequence[str] = ()) -> Plan:
    """Read the corpus and divide it.

    Args:
        experiment: The experiment.
        out: Its folder.
        rows: Names of the rows to train, or of their folders; empty for all.

    Raises:
        InputError: There is no such row, the corpus is not usable, the protocol holds nothing out, or `out` holds
            results of other options.
    """
    if experiment.protocol == ALL:
        raise InputError(f"protocol: {ALL} holds nothing out, so there is nothing to measure: name another")
    chosen = _choose(experiment.trained, rows)
    utterances = read_corpus(experiment.corpus)
    jobs = []
    for row in experiment.trained:
        for seed in experiment.seeds(row):
            options = experiment.options(row, seed, out)
            if row.slug in chosen:
                _check_run(row, options)
            folds = make_folds(options.protocol, usable(utterances, options), (), options.split_seed)
            jobs += [Job(row, seed, dataclasses.replace(options, folds=(fold.name,))) for fold in folds]
    corpus = _corpus_text(corpus_identity(experiment.corpus), len(utterances))
    baselines = make_baselines([job.options for job in jobs], out)
    return Plan(experiment, out, tuple(jobs), chosen, utterances, corpus, baselines)


def _corpus_text(identity: Mapping[str, Any], count: int) -> str:
    """Return what a corpus is, or several are, for people."""
    name = identity["name"]
    if "reader" in identity:
        name = f"{identity['reader']}:{name}{'?' + identity['where'] if 'where' in identity else ''}"
    digests = [one["sha256"][:12] for one in identity.get("corpora", [identity]) if "sha256" in one]
    return f"{name}, {count:,} utterances{', SHA-256 ' if digests else ''}{', '.join(digests)}"


def prepare(plan: Plan, strict: bool = False) -> None:
    """Compute the audio features of what is to be trained, so that workers only read them; check the models with them.

    Args:
        plan: The plan.
        strict: Refuse a corpus with an utterance that cannot be used; they are listed and left out otherwise.

    Raises:
        InputError: An encoder is not there or not usable, a model does not go with what the frontends give, or too
            much of the corpus cannot be used.
        EdgeSerError: There is no room for the features.
    """
    opened: dict[tuple[Any, ...], dict[str, InputSpec]] = {}
    for job in {job.row.slug: job for job in plan.todo}.values():
        try:
            key = _feature_key(job.options)
            if key not in opened:
                opened[key] = _compute_features(job.options, plan.utterances, strict)
            check_model(job.options, opened[key])
        except InputError as error:
            raise InputError(f"row {job.row.name!r}: {error}") from error


def _feature_key(options: TrainOptions) -> tuple[Any, ...]:
    """Return what two rows have to share for the same features."""
    encoders = (options.audio_encoder, options.text_encoder, options.sentence_encoder)
    words = (options.word_vectors, options.pronunciations)
    speeds = (options.recipe.log_mel.speeds, options.recipe.encoder.speeds)
    bank = (family(options.family).log_mel, options.bins)
    return (options.modalities, encoders, words, bank, speeds, options.labels, options.exclude)


def _compute_features(options: TrainOptions, utterances: Sequence[Utterance], strict: bool) -> dict[str, InputSpec]:
    """Compute what is missing on disk; return what the frontends give."""
    features = open_features(options)
    specs = input_specs({name: source.frontend for name, source in features.items()})
    check_model(options, specs)
    compute_features(options, usable(utterances, options), features, strict)
    return specs


def _choose(trained: Sequence[Row], names: Sequence[str]) -> frozenset[str]:
    """Return the folders' names of the rows with these names."""
    by_name = {**{row.slug: row.slug for row in trained}, **{row.name: row.slug for row in trained}}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise InputError(f"rows: got {', '.join(unknown)}, expected some of {', '.join(row.slug for row in trained)}")
    return frozenset(by_name[name] for name in names or by_name)


def _check_run(row: Row, options: TrainOptions) -> None:
    """Refuse to go on from, or to show, results of other options."""
    try:
        find_run(options)
    except InputError as error:
        raise InputError(f"row {row.name!r}: {error}") from error
