"""From a TOML file to an experiment, checked as far as it can be without the corpus."""

from __future__ import annotations

import itertools
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeser.corpora.splits import check_protocol
from edgeser.experiments.checking import check_figure, check_models, check_names
from edgeser.experiments.spec import ACCURACIES, COLUMNS, KINDS, Experiment, FigureSpec, Published, Row
from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.toml_file import read_toml
from edgeser.training.options import TrainOptions

_NOT_A_ROWS = ("corpus", "out", "protocol", "folds", "changes", "recipe", "devices", "nodes")
_RECIPE = "recipe."
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def read_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Read an experiment and check all of it: keys, families, variants, options, recipes, the figure's axes.

    Raises:
        InputError: The file is missing or no TOML, or something in it is unknown or of the wrong type. One line, which
            names the file and the row.
    """
    values = read_toml(path)
    try:
        experiment = _experiment(_Table(values, ""))
        check_names(experiment)
        check_figure(experiment)
        check_models(experiment)
    except InputError as error:
        raise InputError(f"{Path(path)}: {error}") from error
    return experiment


class _Table:
    """A TOML table that knows where it stands and which of its keys have been read."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self._read: list[str] = []

    def take(self, name: str, kind: type, otherwise: Any = None, *, needed: bool = False) -> Any:
        """Return a value of a type, or what stands in for it."""
        self._read.append(name)
        if name not in self.values:
            if needed:
                raise InputError(f"{self.where}{name} is missing, expected {_NAMES[kind]}")
            return otherwise
        return typed(self.values[name], kind, f"{self.where}{name}")

    def texts(self, name: str, otherwise: Sequence[str] = ()) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(typed(one, str, f"{self.where}{name}") for one in self.take(name, list, list(otherwise)))

    def table(self, name: str) -> _Table:
        """Return a table in this one, empty where it is not there."""
        return _Table(self.take(name, dict, {}), f"{self.where}{name}: ")

    def tables(self, name: str) -> list[_Table]:
        """Return an array of tables."""
        found = self.take(name, list, [])
        where = f"{self.where}{name}"
        return [_Table(typed(one, dict, where), f"{where} {place}: ") for place, one in enumerate(found, 1)]

    def done(self) -> None:
        """Refuse what was not read."""
        unknown = [name for name in self.values if name not in self._read]
        if unknown:
            raise InputError(f"{self.where}got {', '.join(unknown)}, expected some of {', '.join(self._read)}")


def typed(value: Any, kind: type, where: str) -> Any:
    """Return a value if it has a type (`object` for any); whole numbers are numbers too, true and false are not.

    Raises:
        InputError: It has another.
    """
    if kind is object:
        return value
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}: got {value!r}, expected {_NAMES[kind]}")
    return value


def _experiment(top: _Table) -> Experiment:
    title = top.take("title", str, needed=True)
    corpus = top.texts("corpus") if isinstance(top.values.get("corpus"), list) else top.take("corpus", str, needed=True)
    columns = top.texts("columns", Experiment.columns)
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) < len(columns):
        raise InputError(f"columns: got {', '.join(columns)}, expected some of {', '.join(COLUMNS)}, each once")
    if not set(columns) & set(ACCURACIES):
        raise InputError(f"columns: got {', '.join(columns)}, expected one of {', '.join(ACCURACIES)} at least")
    repeats = top.take("repeats", int, 1)
    if repeats < 1:
        raise InputError(f"repeats: got {repeats}, expected at least 1")
    shared, recipe = top.table("options"), top.take("recipe", dict, {})
    rows = [_row(table, shared, recipe, columns) for table in top.tables("rows")]
    for sweep in top.tables("sweep"):
        rows += _sweep(sweep, shared, recipe, columns)
    rows += [_reference(table, columns) for table in top.tables("references")]
    experiment = Experiment(
        title=title,
        corpus=corpus,
        rows=tuple(rows),
        source=top.take("source", str, ""),
        note=top.take("note", str, ""),
        protocol=check_protocol(top.take("protocol", str, Experiment.protocol)),
        repeats=repeats,
        columns=columns,
        published_on=top.take("published_on", str, ""),
        figure=_figure(top.table("figure")),
    )
    top.done()
    if not experiment.trained:
        raise InputError("rows: got none, expected [[rows]] or [[sweep]]")
    if not experiment.published_on and any(row.published for row in rows):
        raise InputError("published_on is missing, expected the corpus of the published figures, for example IEMOCAP")
    return experiment


def _row(table: _Table, shared: _Table, recipe: Mapping[str, Any], columns: Sequence[str]) -> Row:
    name = table.take("name", str, needed=True)
    table.where = f"row {name!r}: "
    published = _published(table.table("published"), columns)
    return _finish_row(name, table, shared, recipe, published, {})


def _sweep(table: _Table, shared: _Table, recipe: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each point of a grid."""
    grid = {axis: _axis(table, axis) for axis in table.take("grid", dict, needed=True)}
    if not grid:
        raise InputError(f"{table.where}grid is empty, expected for example keep_rate = [0.1, 0.5]")
    pattern = table.take("name", str, ", ".join(f"{axis} {{{axis}}}" for axis in grid))
    places = {tuple(_tuple(known.take(axis, object)) for axis in grid): known for known in table.tables("published")}
    for point in itertools.product(*grid.values()):
        at = dict(zip(grid, point, strict=True))
        try:
            name = pattern.format_map(at)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InputError(f"{table.where}name: got {pattern!r}, expected names of the grid in braces") from error
        known = places.pop(point, None)
        published = {} if known is None else _published(known, columns)
        yield _finish_row(name, _Table(table.values, f"row {name!r}: "), shared, recipe, published, at)
    for left in places.values():
        raise InputError(f"{left.where}got {left.values}, which is no point of the grid")


def _axis(table: _Table, axis: str) -> list[Any]:
    """Return the values of one axis of a grid."""
    values = typed(table.values["grid"][axis], list, f"{table.where}grid: {axis}")
    if not values:
        raise InputError(f"{table.where}grid: {axis} is empty, expected values")
    return [_tuple(value) for value in values]


def _reference(table: _Table, columns: Sequence[str]) -> Row:
    name = table.take("name", str, needed=True)
    published = _published(table.table("published"), columns)
    table.done()
    return Row(name, published=published, is_trained=False)


def _published(table: _Table, columns: Sequence[str]) -> dict[str, Published]:
    """Read the paper's figures; above 1 they are percentages, as some papers write them."""
    found: dict[str, Published] = {}
    for name in ACCURACIES:
        value = table.take(name, object)
        if value is None:
            continue
        where = f"{table.where}{name}"
        mean, *rest = [typed(one, float, where) for one in (value if isinstance(value, list) else [value])] or [-1.0]
        scale, decimals = (0.01, 4) if mean > 1 else (1.0, 3)
        if not 0 <= mean * scale <= 1 or len(rest) > 1:
            raise InputError(f"{where}: got {value}, expected an accuracy, or [accuracy, deviation]")
        if name not in columns:
            raise InputError(f"{where} is published but not in columns ({', '.join(columns)}): add it there")
        found[name] = Published(round(mean * scale, 6), round(rest[0] * scale, 6) if rest else None, decimals)
    table.done()
    return found


def _finish_row(
    name: str,
    table: _Table,
    shared: _Table,
    recipe: Mapping[str, Any],
    published: Mapping[str, Published],
    swept: Mapping[str, Any],
) -> Row:
    """Merge what all rows share with a row's own, which wins."""
    options = {**_options(shared), **_options(table)}
    own_recipe = {**recipe, **table.take("recipe", dict, {})}
    changes = {**shared.take("set", dict, {}), **_variant(table, options), **table.take("set", dict, {})}
    for axis, value in swept.items():
        (own_recipe if axis.startswith(_RECIPE) else changes)[axis.removeprefix(_RECIPE)] = value
    at = {**own_recipe, **changes, **swept, **table.take("at", dict, {})}
    for key in ("name", "published", *(["grid"] if swept else [])):
        table.take(key, object)
    shared.done()
    table.done()
    return Row(name, {**options, "changes": _tuples(changes)}, _tuples(own_recipe), published, at)


def _variant(table: _Table, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a family's named variant changes."""
    name = table.take("variant", str)
    if name is None:
        return {}
    known = family(options.get("family", TrainOptions.family)).variants
    if name not in known:
        raise InputError(f"{table.where}variant: got {name!r}, expected one of {', '.join(known) or 'none'}")
    return dict(known[name])


def _options(table: _Table) -> dict[str, Any]:
    """Read the fields of `TrainOptions` that a table has, each by its type."""
    hints = typing.get_type_hints(TrainOptions)
    found = {}
    for name, hint in hints.items():
        if name in _NOT_A_ROWS:
            continue
        if name in table.values:
            found[name] = _option(table, name, hint)
        else:
            table.take(name, object)
    return found


def _option(table: _Table, name: str, hint: Any) -> Any:
    choices = [one for one in typing.get_args(hint) if one is not types.NoneType]
    kind = choices[0] if isinstance(hint, types.UnionType) else hint
    origin = typing.get_origin(kind) or kind
    if origin in (tuple, frozenset):
        return origin(table.texts(name))
    if issubclass(origin, Path):
        return Path(table.take(name, str))
    return table.take(name, origin)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuple(value) for name, value in values.items()}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _figure(table: _Table) -> FigureSpec:
    kind = table.take("kind", str, FigureSpec.kind)
    if kind not in KINDS:
        raise InputError(f"figure: kind: got {kind!r}, expected {' or '.join(KINDS)}")
    figure = FigureSpec(kind)
    if kind == "lines":
        figure = FigureSpec(
            kind,
            x=table.take("x", str, needed=True),
            y=table.take("y", str, FigureSpec.y),
            series=table.take("series", str, ""),
            x_label=table.take("x_label", str, ""),
        )
    table.done()
    return figure
