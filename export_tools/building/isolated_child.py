"""The other process of `isolated`: one call, one answer."""

from __future__ import annotations

import os
import resource

from edgeser.runtime.child import Failure, meet_parent, outcome
from edgeser.runtime.errors import EngineError

_MB = 1 << 20


def main() -> None:
    """Call what the parent asks for."""
    connection, _ = meet_parent()
    os.dup2(2, 1)  # what native code prints is for people; stdout may be a program's
    function, request, memory_mb = connection.recv()
    if memory_mb is not None:
        # Not RLIMIT_AS: CUDA reserves more addresses than there is memory.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb * _MB, most))
    answer: tuple[Failure | None, object] = outcome(lambda: function(request), EngineError, "it failed")
    connection.send(answer)


if __name__ == "__main__":
    main()
