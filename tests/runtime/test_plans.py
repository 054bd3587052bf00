from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.engines import TensorSpec
from edgeser.runtime.errors import BundleError, EdgeSerError
from edgeser.runtime.manifest import sealed_json
from edgeser.runtime.plans import LIBRARIES, Plan, plan_folder, plan_path, read_plan, write_plan
from edgeser.runtime.stored_zip import open_zip, read_entry, write_zip

GRAPH = b"a graph"
ENGINE = bytes(range(256)) * 4
PLAN = Plan(
    graph_sha256=hashlib.sha256(GRAPH).hexdigest(),
    library="tensorrt",
    library_version="10.3.0",
    gpu="Orin",
    capability="8.7",
    precision="int8",
    lowering="plugin",
    inputs=(TensorSpec("audio", "float32", (None, 460, 80)), TensorSpec("audio_length", "int32", (None,))),
    outputs=(TensorSpec("logits", "float32", (None, 4)),),
    max_batch=8,
    difference=0.0125,
    plugins=True,
    edgeser_version="0.1.0",
    platform="CUDA 12.6, R36 (release), REVISION: 4.3",
)
HERE = ("10.3.0", "Orin", "8.7", GRAPH)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans") / "a.plan"


@pytest.fixture(scope="module")
def intact(place: Path) -> bytes:
    write_plan(place, PLAN, ENGINE)
    return place.read_bytes()


def refuse(place: Path, raw: bytes) -> None:
    place.write_bytes(raw)
    with pytest.raises(BundleError, match=r"\.plan: the plan is damaged, or of another EdgeSER: run `edgeser build`"):
        read_plan(place)


@pytest.mark.parametrize("difference", [None, 0.0, 1e-3])
def test_round_trip(tmp_path: Path, difference: float | None) -> None:
    plan = dataclasses.replace(PLAN, difference=difference)
    written = write_plan(tmp_path / "new" / "folder" / "a.plan", plan, ENGINE)
    assert written.engine_bytes == len(ENGINE)
    assert written.engine_sha256 == hashlib.sha256(ENGINE).hexdigest()
    assert dataclasses.replace(written, engine_bytes=0, engine_sha256="") == plan
    assert read_plan(tmp_path / "new" / "folder" / "a.plan") == (written, ENGINE)
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


def test_replaces_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.plan"
    write_plan(file, PLAN, b"old")
    write_plan(file, PLAN, b"new")
    assert read_plan(file)[1] == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_plan_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.plan"
    write_plan(file, PLAN, b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EdgeSerError, match=r"a\.plan: cannot be written \(No space left on device\): make room"):
        write_plan(file, PLAN, b"new")
    assert read_plan(file)[1] == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such plan: run `edgeser build` first"):
        read_plan(tmp_path / "a.plan")


@settings(max_examples=150, deadline=None)
@given(where=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_damage(place: Path, intact: bytes, where: int, bit: int) -> None:
    raw = bytearray(intact)
    raw[where % len(raw)] ^= 1 << bit
    refuse(place, bytes(raw))


@settings(max_examples=50, deadline=None)
@given(size=st.integers(min_value=0), more=st.binary(max_size=3))
def test_cut_short_or_longer_is_damage(place: Path, intact: bytes, size: int, more: bytes) -> None:
    refuse(place, intact[: size % len(intact)])
    if more:
        refuse(place, intact + more)


def test_an_intact_plan_is_read(place: Path, intact: bytes) -> None:
    """What the two tests above are worth."""
    place.write_bytes(intact)
    assert read_plan(place)[1] == ENGINE


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"engine_bytes": 1},
        {"engine_sha256": "0" * 64},
        {"library": "onnxruntime"},
        {"unknown": 1},
        {"inputs": None},
        {"outputs": [{"name": "logits"}]},
    ],
)
def test_a_description_that_fits_no_plan_is_damage(tmp_path: Path, changes: dict[str, object]) -> None:
    """Sealed anew, so that only the content can give it away."""
    file = tmp_path / "a.plan"
    write_plan(file, PLAN, ENGINE)
    with file.open("rb") as content:
        description = json.loads(read_entry(content, open_zip(file)["plan.json"]))
    del description["seal"]
    write_zip(file, [("plan.json", sealed_json({**description, **changes})), ("engine.plan", ENGINE)])
    refuse(file, file.read_bytes())


@pytest.mark.parametrize("names", [["plan.json"], ["engine.plan"], ["plan.json", "engine.plan", "more"]])
def test_other_files_are_damage(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "a.plan"
    write_zip(file, [(name, b"{}") for name in names])
    refuse(file, file.read_bytes())


def test_a_plan_serves_where_it_was_built() -> None:
    assert PLAN.unusable(*HERE) == ""


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (("10.7.0", "Orin", "8.7", GRAPH), "was built by tensorrt 10.3.0, this is 10.7.0"),
        (("10.3.0", "Orin Nano", "8.7", GRAPH), "was built on Orin, this is Orin Nano"),
        (("10.3.0", "Orin", "8.6", GRAPH), "was built for compute capability 8.7, this GPU has 8.6"),
        (("10.3.0", "Orin", "8.7", b"another"), "was built from another graph"),
    ],
)
def test_stale_and_foreign_plans_say_why(here: tuple[str, str, str, bytes], why: str) -> None:
    assert PLAN.unusable(*here) == f"tensorrt: the plan {why}: run `edgeser build` again"


@pytest.mark.parametrize(
    ("capability", "here", "serves"),
    [
        ("", "12.0", True),
        ("8.6", "8.6", True),
        ("8.6,8.9", "8.9", True),
        ("8.6,8.9", "8.0", False),
        ("12.0", "2.0", False),
    ],
)
def test_plans_built_ahead_of_time_fit_any_gpu_of_their_capabilities(capability: str, here: str, serves: bool) -> None:
    plan = dataclasses.replace(PLAN, library="tensorrt_rtx", gpu="", capability=capability)
    assert (plan.unusable("10.3.0", "RTX 4090", here, GRAPH) == "") == serves


@pytest.mark.parametrize("field", ["library", "precision", "lowering"])
def test_closed_choices_are_checked(field: str) -> None:
    with pytest.raises(BundleError, match=f"plan: got {field} 'x', expected one of "):
        dataclasses.replace(PLAN, **{field: "x"})  # type: ignore[arg-type]


def test_one_place_for_each_graph_and_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = {plan_path(graph, library) for graph in (GRAPH, b"another") for library in LIBRARIES}
    assert len(places) == 4
    assert {place.parent for place in places} == {tmp_path / "edgeser" / "plans"}


@pytest.mark.parametrize("cache", ["", "relative/cache"])
def test_the_default_place(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/home/robot")
    assert plan_folder() == Path("/home/robot/.cache/edgeser/plans")
