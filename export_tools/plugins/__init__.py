"""TensorRT plugins for the operators of the domain `edgeser`, and their CUDA kernels.

`register(tensorrt)` makes them known; nothing here imports TensorRT or needs a GPU before a plugin runs.
"""

from edgeser.export_tools.plugins.registration import register

__all__ = ["register"]
