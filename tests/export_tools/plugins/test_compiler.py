"""Compiling the kernels: without warnings for every architecture, once, and never half a file in the cache."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgeser.export_tools.plugins import compiler
from edgeser.export_tools.plugins.compiler import SOURCES, Compiler, Nvcc, Nvrtc, compiled, find_compiler, kernel_folder
from edgeser.runtime.errors import EngineError

# Jetson Orin, Hopper, Blackwell, Jetson Thor, GeForce RTX 50; older and newer compilers know some of them.
ARCHITECTURES = ("87", "90", "100", "110", "120")


@pytest.fixture(scope="module")
def nvcc() -> Nvcc:
    try:
        found = find_compiler()
    except EngineError as error:
        pytest.skip(str(error))
    if not isinstance(found, Nvcc):
        pytest.skip("nvcc is not installed")
    return found


@pytest.mark.parametrize("name", ["key_sparse_attention", "drop_attention", "top_k_mask"])
def test_all_architectures_without_warnings(name: str, nvcc: Nvcc, tmp_path: Path) -> None:
    """Of one PTX, since no source asks for its architecture: most of the time is the way there."""
    known = subprocess.run([nvcc.program, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    wanted = [arch for arch in ARCHITECTURES if f"compute_{arch}" in known]
    assert wanted
    targets = f"-gencode=arch=compute_{wanted[0]},code=[{','.join(f'sm_{arch}' for arch in wanted)}]"
    output = tmp_path / "kernels.fatbin"
    command = [nvcc.program, "-std=c++17", "-Werror", "all-warnings", "-Xptxas", "-O1", "-fatbin", targets]
    done = subprocess.run(
        [*command, "-DHEAD_DIM=64", "-o", str(output), str(SOURCES / f"{name}.cu")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert output.stat().st_size > 10_000


def test_kernels_have_their_names(nvcc: Nvcc) -> None:
    """Every name that a launch asks for is in the machine code."""
    code = compiled("top_k_mask", "sm_90", compiler=nvcc)
    for kernel in ("sum_columns", "find_threshold", "mask_columns"):
        for kind in ("f32", "f16"):
            assert f"{kernel}_{kind}".encode() in code


def test_no_half_file_stays_behind(nvcc: Nvcc) -> None:
    with pytest.raises(EngineError, match=r"(?s)nvcc.*failed.*sm_11"):
        compiled("top_k_mask", "sm_11", compiler=nvcc)
    assert not [path for path in kernel_folder().iterdir() if "sm_11" in path.name]


class Counting(Compiler):
    """Compiles nothing, and counts."""

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.calls = 0

    def compile(self, source: Path, arch: str, options: Iterable[str]) -> bytes:
        self.calls += 1
        assert source.is_file()
        return f"{source.name} {arch} {' '.join(options)} {self.version}".encode()


def test_the_cache_keeps_apart_what_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counting = Counting()
    first = compiled("top_k_mask", "sm_87", {"B": 2, "A": 1}, counting)
    assert first == b"top_k_mask.cu sm_87 -std=c++17 -DA=1 -DB=2 1"
    assert compiled("top_k_mask", "sm_87", {"A": 1, "B": 2}, counting) == first
    assert counting.calls == 1
    others = [
        compiled("top_k_mask", "sm_90", {"A": 1, "B": 2}, counting),
        compiled("top_k_mask", "sm_87", {"A": 2, "B": 2}, counting),
        compiled("key_sparse_attention", "sm_87", {"A": 1, "B": 2}, counting),
        compiled("top_k_mask", "sm_87", {"A": 1, "B": 2}, Counting("2")),
    ]
    assert len({first, *others}) == 5
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources)
    monkeypatch.setattr(compiler, "SOURCES", sources)
    (sources / "ptx.cuh").write_text("// another\n")
    compiled("top_k_mask", "sm_87", {"A": 1, "B": 2}, counting)
    assert counting.calls == 5
    assert len(list((tmp_path / "cache" / "edgeser" / "kernels").iterdir())) == 6


def test_nvcc_of_cuda_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder, version in (("home/bin", "mine"), ("path", "theirs")):
        (tmp_path / folder).mkdir(parents=True)
        program = tmp_path / folder / "nvcc"
        program.write_text(f"#!/bin/sh\necho version {version}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert find_compiler().version == "version mine"
    monkeypatch.delenv("CUDA_HOME")
    assert find_compiler().version == "version theirs"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(compiler.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(compiler.ctypes, "CDLL", refuse)
    with pytest.raises(EngineError, match=r"found neither nvcc nor NVRTC.*install JetPack's cuda-nvcc"):
        find_compiler()


class FakeNvrtc:
    """NVRTC's calls, with what they were given."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.destroyed = False

    def nvrtcVersion(self, major: ctypes._Pointer[ctypes.c_int], minor: ctypes._Pointer[ctypes.c_int]) -> int:
        major._obj.value, minor._obj.value = 12, 6  # type: ignore[attr-defined]
        return 0

    def nvrtcCreateProgram(
        self, program: object, source: bytes, name: bytes, count: int, texts: object, names: object
    ) -> int:
        self.source, self.name = source, name
        self.headers = dict(zip(names, texts, strict=True))  # type: ignore[call-overload]
        assert len(self.headers) == count
        return 0

    def nvrtcCompileProgram(self, program: object, count: int, options: Iterable[bytes]) -> int:
        self.options = list(options)
        assert len(self.options) == count
        return self.status

    def nvrtcGetCUBINSize(self, program: object, size: ctypes._Pointer[ctypes.c_size_t]) -> int:
        size._obj.value = 5  # type: ignore[attr-defined]
        return 0

    nvrtcGetProgramLogSize = nvrtcGetCUBINSize

    def nvrtcGetCUBIN(self, program: object, data: ctypes.Array[ctypes.c_char]) -> int:
        data.raw = b"\x7fELF\0"
        return 0

    def nvrtcGetProgramLog(self, program: object, data: ctypes.Array[ctypes.c_char]) -> int:
        data.raw = b"oops\0"
        return 0

    def nvrtcDestroyProgram(self, program: object) -> int:
        self.destroyed = True
        return 0


def test_nvrtc_gets_sources_and_headers() -> None:
    library = FakeNvrtc()
    found = Nvrtc(library)  # type: ignore[arg-type]
    assert found.version == "NVRTC 12.6"
    code = found.compile(SOURCES / "key_sparse_attention.cu", "sm_87", ["-std=c++17", "-DHEAD_DIM=64"])
    assert code == b"\x7fELF\0"
    assert library.options == [b"--gpu-architecture=sm_87", b"-std=c++17", b"-DHEAD_DIM=64"]
    assert set(library.headers) == {b"attention.cuh", b"ptx.cuh", b"selection.cuh", b"tiles.cuh"}
    assert library.source == (SOURCES / "key_sparse_attention.cu").read_bytes()
    assert library.destroyed


def test_nvrtc_says_why_it_refuses() -> None:
    library = FakeNvrtc(status=6)
    with pytest.raises(EngineError, match=r"top_k_mask.cu: NVRTC 12.6 cannot compile it for sm_999\noops"):
        Nvrtc(library).compile(SOURCES / "top_k_mask.cu", "sm_999", [])  # type: ignore[arg-type]
    assert library.destroyed


def test_sources_need_no_headers_of_cuda() -> None:
    """A device with NVRTC alone has none."""
    for path in [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh")]:
        assert "__CUDA_ARCH__" not in path.read_text(), path.name
        included = [line.split()[1] for line in path.read_text().splitlines() if line.startswith("#include")]
        assert all((SOURCES / name.strip('"')).is_file() for name in included), path.name
