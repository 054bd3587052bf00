"""EdgeSER: speech emotion recognition on the device, voice and words together, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeser.runtime.bundle import Bundle as Bundle
    from edgeser.runtime.errors import (
        AsrError as AsrError,
    )
    from edgeser.runtime.errors import (
        BundleError as BundleError,
    )
    from edgeser.runtime.errors import (
        EdgeSerError as EdgeSerError,
    )
    from edgeser.runtime.errors import (
        EngineError as EngineError,
    )
    from edgeser.runtime.errors import (
        InputError as InputError,
    )
    from edgeser.runtime.errors import (
        MissingDependencyError as MissingDependencyError,
    )
    from edgeser.runtime.errors import (
        ParityError as ParityError,
    )
    from edgeser.runtime.recognizer import Runtime as Runtime
    from edgeser.runtime.results import Result as Result
    from edgeser.runtime.results import Span as Span
    from edgeser.runtime.results import Timings as Timings
    from edgeser.runtime.results import Word as Word
    from edgeser.runtime.running_mean import RunningMean as RunningMean
    from edgeser.runtime.streams import Event as Event
    from edgeser.runtime.streams import IsolatedStream as IsolatedStream
    from edgeser.runtime.streams import Stream as Stream
    from edgeser.runtime.streams import StreamOptions as StreamOptions

_HOMES = {
    "Runtime": "recognizer",
    "Bundle": "bundle",
    "Result": "results",
    "Span": "results",
    "Timings": "results",
    "Word": "results",
    "RunningMean": "running_mean",
    "Event": "streams",
    "IsolatedStream": "streams",
    "Stream": "streams",
    "StreamOptions": "streams",
    "AsrError": "errors",
    "BundleError": "errors",
    "EdgeSerError": "errors",
    "EngineError": "errors",
    "InputError": "errors",
    "MissingDependencyError": "errors",
    "ParityError": "errors",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604 - the names are strings, from the table above


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use, so that `import edgeser` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeser' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"edgeser.runtime.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
