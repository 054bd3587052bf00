"""What an experiment is: rows to train, the folds they are compared on, and what the table shows of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeser.corpora import Spec, as_spec
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe

ACCURACIES = ("WA", "UA", "WF1")
"""Columns that the predictions give."""
COSTS = ("parameters", "ONNX MB", "p50 ms")
"""Columns that the exported model of a row's first fold gives."""
COLUMNS = (*ACCURACIES, *COSTS)
KINDS = ("bars", "lines")


@dataclass(frozen=True)
class Published:
    """A figure as a paper states it.

    Attributes:
        mean: 0 to 1.
        deviation: The same unit; `None` where the paper states none.
        decimals: Those that the paper gives: four for percentages with two.
    """

    mean: float
    deviation: float | None = None
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """One row of the table: one model.

    Attributes:
        name: As the table shows it.
        options: Fields of `TrainOptions`, `changes` among them.
        recipe: Fields of `Recipe`.
        published: The paper's figures, by column.
        at: What the figure's axes read, by name: what the file states, else what the model and recipe are changed to.
        is_trained: `False` for a row that only quotes a paper.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Published] = field(default_factory=dict)
    at: Mapping[str, Any] = field(default_factory=dict)
    is_trained: bool = True

    @property
    def slug(self) -> str:
        """The name of the row's folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-.")


@dataclass(frozen=True)
class FigureSpec:
    """How the table is drawn.

    Attributes:
        kind: One of `KINDS`: bars of the accuracies, row by row; or `y` over `x`.
        x: What `Row.at` is read for along the axis of `lines`.
        y: A column.
        series: What `Row.at` is read for to tell the lines apart; empty for one line.
        x_label: Written below the axis; `x` itself where it is empty.
    """

    kind: str = "bars"
    x: str = ""
    y: str = "UA"
    series: str = ""
    x_label: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table to be made.

    Attributes:
        title: Its heading.
        corpus: For example `manifest:corpus.csv`, or several, which are read as one.
        rows: In order; names and slugs differ.
        source: The paper and table that it repeats; may be empty.
        note: What a reader should know; may be empty.
        protocol: How the corpus is divided.
        repeats: Every row is trained this often, with seeds from its recipe's on.
        columns: Some of `COLUMNS`.
        published_on: The corpus of the papers' figures.
        figure: How it is drawn.
    """

    title: str
    corpus: Spec
    rows: tuple[Row, ...]
    source: str = ""
    note: str = ""
    protocol: str = "leave-one-session-out"
    repeats: int = 1
    columns: tuple[str, ...] = ("WA", "UA")
    published_on: str = ""
    figure: FigureSpec = field(default_factory=FigureSpec)

    @property
    def trained(self) -> tuple[Row, ...]:
        """The rows that are ours."""
        return tuple(row for row in self.rows if row.is_trained)

    def seeds(self, row: Row) -> tuple[int, ...]:
        """Return the seeds that a row is trained with."""
        first = int(row.recipe.get("seed", Recipe.seed))
        return tuple(range(first, first + self.repeats))

    def options(self, row: Row, seed: int, out: Path) -> TrainOptions:
        """Return what trains a row with a seed, below the experiment's folder.

        Raises:
            InputError: An option is unknown or its value is none it takes.
        """
        recipe = Recipe.from_dict({**row.recipe, "seed": seed})
        run = out / "runs" / row.slug / f"seed-{seed}"
        return TrainOptions(corpus=self.corpus, out=run, protocol=self.protocol, recipe=recipe, **row.options)

    def with_corpus(self, corpus: Spec) -> Experiment:
        """Return the same experiment on another corpus."""
        return dataclasses.replace(self, corpus=as_spec(corpus))
