"""A skip on statistics of the rows, exported: both lowerings against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeser.export_tools.export import ExportOptions, export
from edgeser.models import restore_model

if TYPE_CHECKING:
    from edgeser.training.trained import TrainedModel


@pytest.mark.parametrize("statistics", ["mean-deviation", "mean"])
def test_both_lowerings_agree(fresh: Callable[..., TrainedModel], tmp_path: Path, statistics: str) -> None:
    changes = {"skip": 0.3, "skip_statistics": statistics, "readout": "relevance"}
    trained = fresh("compact", ("audio", "text"), **changes)
    bundle, reports = export(trained, ExportOptions(tmp_path / "b.edgeser", "b", utterances=32))
    assert [report.graph for report in reports] == ["portable", "plugin"]
    for report in reports:
        assert report.max_logit_difference < 1e-4
        assert report.label_agreement == 1.0
        assert report.max_importance_difference < 1e-3
    restored = restore_model(bundle.manifest.model.family, bundle.manifest.model.config)
    assert restored.configuration() == trained.model.configuration()
