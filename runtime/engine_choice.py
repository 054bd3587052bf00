"""Which engines may run a bundle, and whether one that was opened takes and gives what its manifest says."""

from __future__ import annotations

import logging

from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, candidates
from edgeser.runtime.errors import BundleError
from edgeser.runtime.golden import unproved

log = logging.getLogger(__name__)


def engines_to_try(bundle: Bundle, engine: str) -> tuple[str, ...]:
    """Return the engines to try with a bundle, best first; others than ONNX Runtime only where they can be proved."""
    names = candidates(engine)
    unknown = () if names == (OnnxRuntimeEngine.name,) else unproved(bundle)
    if not unknown:
        return names
    why = f"{bundle.path.name} has no golden vectors for its encoders of {' and '.join(unknown)}"
    if len(names) == 1:
        log.warning("%s is used unproved: %s", engine, why)
    else:
        log.warning("%s is not used, %s is: %s", ", ".join(names[:-1]), names[-1], why)
    return names[-1:]


def check_contract(bundle: Bundle, engine: Engine) -> None:
    """Raise `BundleError` unless the graph takes what the manifest says and gives one logit per label."""
    takes = {spec.name: spec.shape for spec in engine.inputs}
    expected: dict[str, tuple[int | None, ...]] = {}
    for name, entry in bundle.manifest.inputs.items():
        expected[name] = (None, entry.length, entry.dim)
        expected[f"{name}_length"] = (None,)
    gives = {spec.name: spec.shape for spec in engine.outputs}
    if takes != expected or gives.get("logits") != (None, len(bundle.manifest.labels)):
        raise BundleError(
            f"{bundle.path}: the graph takes {takes} and gives {gives}, the manifest says {expected} "
            f"and {len(bundle.manifest.labels)} labels: export the bundle again"
        )
