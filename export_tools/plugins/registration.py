"""Making the plugins known to TensorRT."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edgeser.export_tools.plugins.drop_attention import DropAttention
from edgeser.export_tools.plugins.key_sparse_attention import KeySparseAttention
from edgeser.export_tools.plugins.operators import Operator
from edgeser.export_tools.plugins.plugin import VERSION, make_creator
from edgeser.export_tools.plugins.top_k_mask import TopKMask
from edgeser.runtime.errors import EngineError

OPERATORS: tuple[type[Operator], ...] = (KeySparseAttention, DropAttention, TopKMask)
# TensorRT's ONNX parser looks where the node's attribute `plugin_namespace` says, by default nowhere (""); newer ones
# try the node's domain as well.
NAMESPACES = ("", "edgeser")
_creators: list[Any] = []  # the registry holds no reference of Python's


def register(trt: ModuleType) -> None:
    """Register all plugins with TensorRT, those that are not registered yet.

    Call it before a graph with `edgeser` operators is parsed, and before a plan with them is deserialised.

    Args:
        trt: The module `tensorrt`, 10.0 or newer, or `tensorrt_rtx`.

    Raises:
        EngineError: TensorRT is too old for plugins in Python, or refuses one.
    """
    if not hasattr(trt, "IPluginV3"):
        raise EngineError(f"TensorRT: got {trt.__version__}, expected 10.0 or newer, which has plugins in Python")
    registry = trt.get_plugin_registry()
    for operator in OPERATORS:
        for namespace in NAMESPACES:
            if find_creator(trt, operator.name, namespace) is not None:
                continue
            creator = make_creator(trt, operator, namespace)
            if not registry.register_creator(creator, namespace):
                raise EngineError(f"TensorRT: refuses the plugin {operator.name} in namespace {namespace!r}")
            _creators.append(creator)


def find_creator(trt: ModuleType, name: str, namespace: str = "") -> Any:
    """Return a plugin's creator from TensorRT's registry; `None` where there is none."""
    for creator in trt.get_plugin_registry().all_creators:
        if (creator.name, creator.plugin_version, creator.plugin_namespace) == (name, VERSION, namespace):
            return creator
    return None
