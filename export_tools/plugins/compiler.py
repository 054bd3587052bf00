"""The kernels' sources, compiled where they run: once per device, then read from a cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgeser.runtime.caches import cache_folder
from edgeser.runtime.errors import EngineError
from edgeser.runtime.files import replacing, writing

SOURCES = Path(__file__).parent
_NVRTC_NAMES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
_OPTIONS = ("-std=c++17",)
_lock = threading.Lock()  # of two threads that need the same kernels, one compiles them


class Compiler(ABC):
    """Turns a source into machine code for one GPU architecture.

    Attributes:
        version: What it calls itself; part of the cache's key.
    """

    version: str

    @abstractmethod
    def compile(self, source: Path, arch: str, options: Iterable[str]) -> bytes:
        """Return a cubin.

        Args:
            source: A `.cu` file.
            arch: For example `sm_87`.
            options: Further options, which all compilers take: `-std=…`, `-DNAME=VALUE`.

        Raises:
            EngineError: The compiler refuses the source or the architecture.
        """


class Nvcc(Compiler):
    """The CUDA toolkit's compiler."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.version = self._run("--version").strip().splitlines()[-1]

    def compile(self, source: Path, arch: str, options: Iterable[str]) -> bytes:
        target = kernel_folder() / f"{source.stem}.{arch}.cubin"
        with replacing(target) as part:
            self._run("-cubin", f"-arch={arch}", *options, "-o", str(part), str(source))
            code = part.read_bytes()
        target.unlink()
        return code

    def _run(self, *arguments: str) -> str:
        command = [self.program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"{' '.join(command)}: failed\n{done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class Nvrtc(Compiler):
    """CUDA's compiler as a library: what a device has that runs CUDA programs but does not build them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        self.version = f"NVRTC {major.value}.{minor.value}"

    def compile(self, source: Path, arch: str, options: Iterable[str]) -> bytes:
        headers = {path.name.encode(): path.read_bytes() for path in sorted(SOURCES.glob("*.cuh"))}
        arguments = [option.encode() for option in (f"--gpu-architecture={arch}", *options)]
        program = ctypes.c_void_p()
        self._check(
            self.library.nvrtcCreateProgram(
                ctypes.byref(program),
                source.read_bytes(),
                source.name.encode(),
                len(headers),
                (ctypes.c_char_p * len(headers))(*headers.values()),
                (ctypes.c_char_p * len(headers))(*headers),
            ),
            "nvrtcCreateProgram",
        )
        try:
            array = (ctypes.c_char_p * len(arguments))(*arguments)
            if self.library.nvrtcCompileProgram(program, len(arguments), array):
                log = self._read(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
                raise EngineError(f"{source.name}: {self.version} cannot compile it for {arch}\n{log.strip()}")
            return self._read(program, "nvrtcGetCUBIN")
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, getter: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.library, f"{getter}Size")(program, ctypes.byref(size)), f"{getter}Size")
        data = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.library, getter)(program, data), getter)
        return data.raw

    @staticmethod
    def _check(status: int, call: str) -> None:
        if status:
            raise EngineError(f"{call}: failed with status {status}")


def find_compiler() -> Compiler:
    """Return nvcc of `$CUDA_HOME`, of the PATH or of `/usr/local/cuda`; else NVRTC.

    Raises:
        EngineError: There is none.
    """
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [str(Path(home) / "bin") for home in homes if home]
    for folder in (places[:-1], None, places[-1:]):
        found = shutil.which("nvcc", path=None if folder is None else os.pathsep.join(folder))
        if found:
            return Nvcc(found)
    libraries = [str(Path(home) / "lib64" / name) for home in homes if home for name in _NVRTC_NAMES]
    for name in (*_NVRTC_NAMES, *libraries):
        try:
            return Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
    raise EngineError(
        "CUDA kernels: found neither nvcc nor NVRTC, one of which compiles them on the device: install JetPack's "
        "cuda-nvcc or cuda-nvrtc package, or set CUDA_HOME to the toolkit's folder"
    )


def kernel_folder() -> Path:
    """Return the folder of compiled kernels; it exists afterwards."""
    folder = cache_folder("kernels")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(name: str, arch: str, macros: Mapping[str, int] | None = None, compiler: Compiler | None = None) -> bytes:
    """Return the machine code of a source, from the cache or freshly compiled.

    The cache's key is a hash of all sources, the architecture, the options and the compiler's version, so that what is
    read always is what would be compiled.

    Args:
        name: Of the source, without `.cu`.
        arch: For example `sm_87`.
        macros: Preprocessor macros.
        compiler: By default what `find_compiler` finds.

    Raises:
        EngineError: There is no compiler, or it refuses.
    """
    compiler = compiler or find_compiler()
    options = [*_OPTIONS, *(f"-D{macro}={value}" for macro, value in sorted((macros or {}).items()))]
    source = SOURCES / f"{name}.cu"
    key = hashlib.sha256("\0".join((compiler.version, arch, *options)).encode())
    for path in (source, *sorted(SOURCES.glob("*.cuh"))):
        key.update(path.read_bytes())
    target = kernel_folder() / f"{name}.{arch}.{key.hexdigest()[:24]}.cubin"
    with _lock:
        if not target.is_file():
            code = compiler.compile(source, arch, options)
            with replacing(target) as part:
                part.write_bytes(code)
        return target.read_bytes()
