"""TensorRT and TensorRT for RTX: one Python API under two names, with what differs between them and their versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeser.runtime.engines.tensorrt import import_library
from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.installed import is_installed


@dataclass(frozen=True)
class Library:
    """One of the two.

    Attributes:
        name: What Python imports.
        target: As users choose it.
        extra: What brings it.
        purpose: Who needs it, for the error where it is missing.
        ahead_of_time: Whether it builds for GPUs that are not there; it then takes compute capabilities, needs none of
            its own, and times nothing.
        plugins: Whether it has plugin layers.
    """

    name: str
    target: str
    extra: str
    purpose: str
    ahead_of_time: bool
    plugins: bool

    def require(self) -> None:
        """Raise `MissingDependencyError` where it is not installed; nothing is imported to find out."""
        if not is_installed(self.name):
            raise MissingDependencyError(self.name, self.extra, self.purpose)

    def load(self) -> Any:
        """Import it.

        Raises:
            MissingDependencyError: It is not installed.
            EngineError: It does not start.
        """
        self.require()
        return import_library(self.name)


LIBRARIES: Mapping[str, Library] = {
    library.target: library
    for library in (
        Library(
            name="tensorrt",
            target="tensorrt",
            extra="jetson",
            purpose="edgeser build --target tensorrt (JetPack has it: let the .venv see system packages)",
            ahead_of_time=False,
            plugins=True,
        ),
        Library(
            name="tensorrt_rtx",
            target="tensorrt-rtx",
            extra="rtx",
            purpose="edgeser build --target tensorrt-rtx",
            ahead_of_time=True,
            plugins=False,
        ),
    )
}
"""By target."""


def network_flags(trt: Any) -> int:
    """Return the flags of a strongly typed network: TensorRT 11 has no other kind, and may have no flag for it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def compute_capabilities(trt: Any, wanted: Sequence[str]) -> list[Any]:
    """Return a library's own names of compute capabilities such as `8.6`.

    Raises:
        InputError: It does not build for one of them.
    """
    known = {
        f"{number[:-1]}.{number[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if (number := name.removeprefix("SM")).isdigit()
    }
    unknown = [capability for capability in wanted if capability not in known]
    if unknown:
        raise InputError(f"capability: got {unknown[0]!r}, expected some of {', '.join(known)}")
    return [known[capability] for capability in wanted]
