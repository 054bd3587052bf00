"""What `inspect` shows of bundles that keep odd things in their manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeser.cli.main import main
from edgeser.runtime.bundle import MANIFEST, write_bundle
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry, sealed_json

DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    manifest = Manifest(
        name="tiny",
        version="1.0",
        model=ModelEntry("ks-transformer", "compact", {}),
        labels=("angry", "sad"),
        inputs={"audio": InputEntry(46, 40, {"kind": "log-mel", "bins": 40})},
        graphs={"portable": "model.onnx"},
        metrics={"test": {"wa": 0.5, "ua": 0.25}},
    )
    return write_bundle(tmp_path / "tiny", manifest, {"model.onnx": b""}).path


def change(folder: Path, **fields: Any) -> None:
    """Change a manifest and seal it again, as whoever makes a bundle by hand could."""
    content = json.loads((folder / MANIFEST).read_bytes())
    del content["seal"]
    (folder / MANIFEST).write_bytes(sealed_json({**content, **fields}))


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"test": {"wa": 0.5, "ua": 0.25}}, "accuracy   WA 0.500   UA 0.250   test"),
        ({"test": {"wa": 1, "ua": 0}}, "accuracy   WA 1.000   UA 0.000   test"),
        ({"ua": 0.71}, "metrics    ua: 0.71"),
        ({"test": None}, "metrics    test: null"),
        ({"test": "good"}, "metrics    test: good"),
        ({"test": {"wa": "0.5", "ua": None}}, 'metrics    test: {"ua": null, "wa": "0.5"}'),
        ({"test": {"wa": True, "ua": 0.5}}, 'metrics    test: {"ua": 0.5, "wa": true}'),
        ({"test": {"wa": {"mean": 0.5}}}, 'metrics    test: {"wa": {"mean": 0.5}}'),
        ({"test": [0.5, [0.25]]}, "metrics    test: [0.5, [0.25]]"),
        ({"test": {"wa": 1e300, "ua": 10**400}}, f'metrics    test: {{"ua": 1{"0" * 192}…'),
        ({"test": {}}, "metrics    test: {}"),
        ({"test": "one\ntwo"}, r"metrics    test: one\ntwo"),
        ({"test": "x" * 1000}, f"metrics    test: {'x' * 200}…"),
        ({}, "licence    not stated"),
    ],
)
def test_odd_metrics(folder: Path, metrics: Any, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, metrics=metrics)
    assert main(["inspect", str(folder)]) == 0
    assert f"  {shown}" in capsys.readouterr().out.splitlines()
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == metrics


@pytest.mark.parametrize(
    ("parity", "shown"),
    [
        (
            [{"graph": "portable", "max_logit_difference": 1e-6, "utterances": 64}],
            "parity     portable: logits within 1.0e-06 of PyTorch on 64 utterances",
        ),
        (
            [{"max_logit_difference": 1e-6}],
            "parity     null: logits within 1.0e-06 of PyTorch on null utterances",
        ),
        ([{"graph": "portable"}], 'parity     {"graph": "portable"}'),
        ([None], "parity     null"),
        ("good", "parity     good"),
        ({"a": 1}, 'parity     {"a": 1}'),
        (None, "parity     null"),
    ],
)
def test_odd_parity(folder: Path, parity: Any, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, provenance={"parity": parity})
    assert main(["inspect", str(folder)]) == 0
    assert f"  {shown}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("frontend", "shown"),
    [({}, "null ()"), ({"kind": 7, "bins": [1]}, "7 (bins [1])"), ({"kind": "x", "a": None}, "x (a null)")],
)
def test_odd_frontends(folder: Path, frontend: Any, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, inputs={"audio": {"length": 46, "dim": 40, "frontend": frontend}})
    assert main(["inspect", str(folder)]) == 0
    assert f"  audio      46 x 40   {shown}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("metrics", ['{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', f'{{"a": {"1" * 5000}}}'])
def test_numbers_that_json_has_not(folder: Path, metrics: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = (folder / MANIFEST).read_text()
    start, end = raw.index('"metrics": ') + len('"metrics": '), raw.index(',\n "model"')
    (folder / MANIFEST).write_text(raw[:start] + metrics + raw[end:])
    one_line(["inspect", str(folder)], "manifest.json: ", capsys)


def test_metrics_nested_without_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, metrics={"a": DEEP})
    status = main(["inspect", str(folder)])
    captured = capsys.readouterr()
    assert (status, captured.err.count("\n")) in ((0, 0), (2, 1))
    assert "Traceback" not in captured.err


def one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
