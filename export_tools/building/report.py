"""What was built, and what was tried on the way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeser.runtime.plans import Plan


@dataclass(frozen=True)
class Attempt:
    """One lowering of one graph.

    Attributes:
        lowering: `plugin` or `portable`.
        seconds: How long it took, the check against golden vectors among it.
        reason: Why its engine is not used; empty where it is.
        warnings: What the compiler warned of.
    """

    lowering: str
    seconds: float
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphReport:
    """One graph of a bundle.

    Attributes:
        name: `model`, or the modality whose encoder it is.
        attempts: In the order they were made; the last one's engine is used, or none.
        plan: The plan; `None` where no attempt gave one.
        file: Where it is kept; `None` where it is not, which is so for all where one graph failed.
        unchecked: Why it was not run on golden vectors; empty where it was.
    """

    name: str
    attempts: tuple[Attempt, ...]
    plan: Plan | None
    file: Path | None = None
    unchecked: str = ""

    @property
    def seconds(self) -> float:
        """How long all attempts took."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def failures(self) -> list[str]:
        """Why engines are not used, one line each."""
        return [f"{self.name}: the {a.lowering} graph: {a.reason}" for a in self.attempts if a.reason]


@dataclass(frozen=True)
class BuildReport:
    """All graphs of a bundle.

    Attributes:
        bundle: Its name and version.
        target: `tensorrt` or `tensorrt-rtx`.
        precision: Of the engines.
        graphs: What became of each.
    """

    bundle: str
    target: str
    precision: str
    graphs: tuple[GraphReport, ...]

    @property
    def failure(self) -> str:
        """Why there is not a plan for every graph, one line; empty where there is."""
        return "; ".join(line for graph in self.graphs if graph.plan is None for line in graph.failures)

    def text(self) -> str:
        """Return a table, and below it what was tried in vain, warned of and not checked."""
        lines = [f"{'graph':<8} {'lowering':<9} {'precision':<9} {'MB':>7} {'s':>7}  golden vectors"]
        lines += [_row(graph) for graph in self.graphs]
        for graph in self.graphs:
            lines += graph.failures
            counts = [(attempt.lowering, len(attempt.warnings)) for attempt in graph.attempts if attempt.warnings]
            lines += [f"{graph.name}: the {lowering} graph: {count} warnings, see --json" for lowering, count in counts]
        lines += [f"wrote {graph.file}" for graph in self.graphs if graph.file is not None]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        graphs = [
            {
                "name": graph.name,
                "file": None if graph.file is None else str(graph.file),
                "plan": None if graph.plan is None else dataclasses.asdict(graph.plan),
                "unchecked": graph.unchecked,
                "attempts": [dataclasses.asdict(attempt) for attempt in graph.attempts],
            }
            for graph in self.graphs
        ]
        return {
            "bundle": self.bundle,
            "target": self.target,
            "precision": self.precision,
            "failure": self.failure,
            "graphs": graphs,
        }


def _row(graph: GraphReport) -> str:
    plan = graph.plan
    if plan is None:
        return f"{graph.name:<8} {'-':<9} {'-':<9} {'-':>7} {graph.seconds:>7.1f}  failed"
    checked = f"not checked: {graph.unchecked}" if plan.difference is None else f"within {plan.difference:.1e}"
    return (
        f"{graph.name:<8} {plan.lowering:<9} {plan.precision:<9} {plan.engine_bytes / 1e6:>7.1f} "
        f"{graph.seconds:>7.1f}  {checked}"
    )
