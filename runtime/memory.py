"""How much memory this process may still take, and errors for want of it."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource  # not later: there may be no room for it
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import AsrError, EngineError, InputError

_MB = 1_000_000
_WANT = re.compile(
    r"bad_alloc|can't alloc|cannot allocate memory|failed to map segment|resource temporarily unavailable"
    r"|cannot load library|unable to allocate|failed to allocate|out of memory",
    re.IGNORECASE,
)
"""What libraries say when they get no memory: ONNX Runtime, OpenVINO, the loader of libraries, soundfile, NumPy."""
_WITHOUT_WORDS = ("SystemError", "PanicException")
"""What extension modules end in when they get none and do not look: those in C, and those in Rust."""


@dataclass(frozen=True)
class Need:
    """Memory in MB.

    Attributes:
        address: Address space, which `ulimit -v` bounds.
        resident: What is really in memory.
    """

    address: int
    resident: int


NEEDS: Mapping[str, Need] = {
    "onnxruntime": Need(220, 160),
    "openvino": Need(950, 300),
    "pocketsphinx": Need(250, 110),
    "vosk": Need(300, 300),
}
"""What each part takes beside 110 MB of Python and NumPy; the engines with the default bundle, on x86-64 with two
cores. Rounded up from what `/proc/self/status` said of ONNX Runtime 1.32, OpenVINO 2026.4 and PocketSphinx 5.1; Vosk's
is what its page of models says of small ones."""

_DECODING = Need(150, 30)  # what PocketSphinx takes anew for an utterance of 4 s


def room() -> tuple[float | None, float | None]:
    """Return the MB of address space and of memory that this process may still take; `None`: as much as it likes."""
    return _address_room(), _resident_room()


def give_back() -> None:
    """Give freed memory back to the system, which the C library may keep; other libraries than glibc do so themselves.

    ONNX Runtime frees 70 MB while it opens the default bundle's recogniser.
    """
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def check_room(name: str, decoding: bool = False) -> None:
    """Raise before a library is opened that ends the process when it gets no memory.

    Raises:
        AsrError: `name`, a recogniser of `NEEDS`, would get too little address space.
    """
    need, left = (_DECODING if decoding else NEEDS[name]).address, _address_room()
    if left is not None and left < need:
        raise AsrError(
            f"{name}: needs about {need} MB of address space, this process may take {max(0.0, left):.0f} MB more: "
            "raise its limit (ulimit -v), or take --asr none"
        )


def is_too_much(name: str) -> str:
    """Return why an engine is better not tried, nothing where it may be: what it took it does not give back."""
    need, (address, resident) = NEEDS.get(name), room()
    if need is None:
        return ""
    for wanted, left, what in ((need.address, address, "address space"), (need.resident, resident, "memory")):
        if left is not None and left < wanted:
            return f"{name}: needs about {wanted} MB of {what}, this process may take {max(0.0, left):.0f} MB more"
    return ""


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Say of errors for want of memory, which libraries raise in many ways, what needs less.

    Raises:
        EngineError: There is not enough memory.
    """
    try:
        yield
    except (InputError, AsrError):
        raise
    except BaseException as error:  # libraries have classes of their own; Rust's is no Exception
        if not is_for_want_of_memory(error):
            raise
        raise EngineError(
            f"not enough memory ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            f"{least()}; raise the limit, or end what else runs here"
        ) from error


def is_for_want_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory; libraries that cannot be loaded count where memory is short."""
    if isinstance(error, MemoryError):
        return True
    if type(error).__name__ not in _WITHOUT_WORDS and not _WANT.search(str(error)):
        return False
    return any(left is not None and left < NEEDS["openvino"].address for left in room())


def least() -> str:
    """Return which choice needs how much, beginning with the least."""
    base, words, quick = (NEEDS[name].address for name in ("onnxruntime", "pocketsphinx", "openvino"))
    return (
        f"--engine onnxruntime with --asr none needs about {base + 110} MB, PocketSphinx {words} more, "
        f"OpenVINO {quick + 110}"
    )


def _address_room() -> float | None:
    try:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError):  # no /proc
        return None
    return (limit - taken) / _MB


def _resident_room() -> float | None:
    found = []
    with contextlib.suppress(OSError, AttributeError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
        found += [int(match[1]) / 1e3] if match else []
    with contextlib.suppress(OSError, ValueError):  # a container's limit; "max" is none
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        found.append((limit - int((group / "memory.current").read_text(encoding="ascii"))) / _MB)
    return min(found, default=None)
