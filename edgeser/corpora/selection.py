"""Which rows of a corpus take part: the `?role=train` of `manifest:voices.csv?role=train`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class Condition:
    """What one column of a row has to be, or must not be.

    Attributes:
        column: Its name.
        values: One of these.
        is_not: None of these.
    """

    column: str
    values: tuple[str, ...]
    is_not: bool = False

    def holds(self, row: Mapping[str, str | None]) -> bool:
        """Say whether a row is as the condition wants it; what it does not state is empty."""
        return ((row.get(self.column) or "").strip() in self.values) != self.is_not


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Parse `role=train&corpus=nemo,tess&language!=it`: every condition holds, commas stand between alternatives.

    Raises:
        InputError: A part is no condition.
    """
    return tuple(_condition(part) for part in text.split("&")) if text else ()


def _condition(text: str) -> Condition:
    column, equals, values = text.partition("=")
    is_not = column.endswith("!")
    column = column.removesuffix("!").strip()
    if not column or not equals:
        raise InputError(f"corpus: got ?{text}, expected column=value or column!=value, for example ?role=train")
    return Condition(column, tuple(value.strip() for value in values.split(",")), is_not)


def check_columns(conditions: Iterable[Condition], columns: Collection[str], where: str) -> None:
    """Refuse a condition on a column that is not there: it would choose all rows, or none.

    Raises:
        InputError: There is such a condition.
    """
    for condition in conditions:
        if condition.column not in columns:
            raise InputError(f"{where}: has no column {condition.column} to choose by, it has {', '.join(columns)}")
