"""An operator as a TensorRT plugin: the classes that TensorRT calls, made for a given TensorRT module."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.export_tools.plugins.operators import Attribute, Operator

VERSION = "1"
_DEFAULTS: dict[type, Attribute] = {int: 0, float: 0.0, tuple: (0,)}


def make_creator(trt: ModuleType, operator: type[Operator], namespace: str) -> Any:
    """Return a plugin creator (`IPluginCreatorV3One`) for an operator.

    Args:
        trt: `tensorrt` 10.0 or newer, or `tensorrt_rtx`, which has the same interface.
        operator: The operator's class.
        namespace: Where the creator will be registered.
    """
    plugin_class = _plugin_class(trt, operator, namespace)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = operator.name
            self.plugin_version = VERSION
            self.plugin_namespace = namespace
            self.defaults = _arrays({name: _DEFAULTS[kind] for name, kind in operator.attributes().items()})
            self.field_names = _fields(trt, self.defaults)

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return plugin_class(operator.from_values({field.name: field.data for field in fields if field.size}))

    return Creator()


def _arrays(values: Mapping[str, Attribute]) -> dict[str, NDArray[Any]]:
    return {
        name: np.atleast_1d(np.asarray(value, np.float32 if isinstance(value, float) else np.int32))
        for name, value in values.items()
    }


def _fields(trt: ModuleType, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Return a field collection. It points into the arrays and holds no reference: its owner keeps them."""
    types = {"int32": trt.PluginFieldType.INT32, "float32": trt.PluginFieldType.FLOAT32}
    return trt.PluginFieldCollection(
        [trt.PluginField(name, array, types[str(array.dtype)]) for name, array in arrays.items()]
    )


def _plugin_class(trt: ModuleType, operator_class: type[Operator], namespace: str) -> Any:
    class Plugin(
        trt.IPluginV3,  # type: ignore[name-defined, misc]
        trt.IPluginV3OneCore,  # type: ignore[name-defined, misc]
        trt.IPluginV3OneBuild,  # type: ignore[name-defined, misc]
        trt.IPluginV3OneRuntime,  # type: ignore[name-defined, misc]
    ):
        def __init__(self, operator: Operator) -> None:
            # Each base has a C++ part of its own; one that is not initialised crashes the process at its first call.
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.operator = operator
            self.values = _arrays({name: getattr(operator, name) for name in operator_class.attributes()})
            self.plugin_name = operator_class.name
            self.plugin_version = VERSION
            self.plugin_namespace = namespace
            self.num_outputs = operator_class.output_count
            self.format_combination_limit = trt.IPluginV3OneBuild.DEFAULT_FORMAT_COMBINATION_LIMIT
            self.metadata_string = ""
            self.timing_cache_id = ""

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Plugin(self.operator)

        def destroy(self) -> None:
            pass

        def get_output_data_types(self, input_types: Any) -> Any:
            return [input_types[0]] * self.num_outputs

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> Any:
            shapes = self.operator.output_shapes([list(dims) for dims in inputs])
            return [trt.DimsExprs(shape) for shape in shapes]

        def supports_format_combination(self, position: int, tensors: Any, input_count: int) -> bool:
            tensor = tensors[position].desc
            if tensor.format != trt.TensorFormat.LINEAR:
                return False
            if position in operator_class.lengths:
                return bool(tensor.type == trt.int32)
            if position == 0:
                return tensor.type in (trt.float32, trt.float16)
            return bool(tensor.type == tensors[0].desc.type)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def set_tactic(self, tactic: int) -> None:
            pass

        def get_valid_tactics(self) -> list[int]:
            return []

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            shapes = [tuple(tensor.max) for tensor in inputs]
            return self.operator.workspace_bytes(shapes, inputs[0].desc.type == trt.float16)

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return _fields(trt, self.values)

        def enqueue(
            self, inputs: Any, outputs: Any, input_addresses: Any, output_addresses: Any, workspace: int, stream: int
        ) -> None:
            addresses = ([*input_addresses], [*output_addresses], workspace)
            is_half = inputs[0].type == trt.float16
            # What is raised here fails the execution: TensorRT reads no status of a Python plugin.
            self.operator.run([tuple(tensor.dims) for tensor in inputs], is_half, addresses, stream)

    return Plugin
