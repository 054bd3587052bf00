"""Loading and starting kernels: with a stand-in for the CUDA driver, and on a GPU where there is one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.export_tools.plugins import driver as driver_module
from edgeser.export_tools.plugins import kernels as kernels_module
from edgeser.export_tools.plugins.driver import Driver, driver
from edgeser.export_tools.plugins.kernels import Kernels
from edgeser.export_tools.plugins.launches import AttentionProblem, DropProblem, Launch, MaskProblem
from edgeser.runtime.errors import EngineError, InputError


class FakeCuda:
    """libcuda's calls, on a device of compute capability 8.7 with 16 multiprocessors."""

    def __init__(self) -> None:
        self.current = 11
        self.loaded: list[tuple[int, bytes]] = []
        self.launched: list[tuple[int, tuple[int, ...], int, list[bytes]]] = []
        self.status = 0
        self.sizes: list[int] = []

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuCtxGetCurrent(self, handle: Any) -> int:
        handle._obj.value = self.current
        return 0

    def cuCtxGetDevice(self, device: Any) -> int:
        device._obj.value = 3
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        assert device.value == 3
        value._obj.value = {75: 8, 76: 7, 16: 16}[attribute]
        return 0

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:
        self.loaded.append((self.current, code))
        module._obj.value = 100 + len(self.loaded)
        return 0

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        function._obj.value = 1000 * module.value + len(name)
        return 0 if name != b"unknown" else 500

    def cuGetErrorName(self, status: int, text: Any) -> int:
        text._obj.value = {500: b"CUDA_ERROR_NOT_FOUND", 100: b"CUDA_ERROR_NO_DEVICE"}[status]
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        *shape, shared, stream, pointers, extra = rest
        assert (shape[4:], shared, extra) == ([1, 1], 0, None)
        values = [ctypes.string_at(pointer, size) for pointer, size in zip(pointers, self.sizes, strict=True)]
        self.launched.append((function.value, tuple(shape[:4]), stream.value, values))
        return 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    monkeypatch.setattr(kernels_module, "compiled", lambda name, arch, macros: f"{name} {arch} {macros}".encode())
    return FakeCuda()


def test_kernels_load_once_per_context(cuda: FakeCuda) -> None:
    kernels = Kernels("source", {"HEAD_DIM": 64}, Driver(cuda))
    cuda.sizes = [8, 4, 4]
    launch = Launch("kernel", (2, 3, 4), 128, (np.uint64(1 << 40), np.int32(-5), np.float32(0.5)))
    kernels.prepare()
    kernels.run([launch, launch], stream=77)
    cuda.current = 12
    kernels.run([launch], stream=78)
    code = b"source sm_87 {'HEAD_DIM': 64}"
    assert cuda.loaded == [(11, code), (12, code)]
    values = [(1 << 40).to_bytes(8, "little"), (-5).to_bytes(4, "little", signed=True), b"\0\0\0?"]
    assert cuda.launched == [
        (function, (2, 3, 4, 128), stream, values) for function, stream in ((101006, 77), (101006, 77), (102006, 78))
    ]
    assert kernels.cuda.processors == 16


def test_failures_have_cudas_names(cuda: FakeCuda) -> None:
    with pytest.raises(EngineError, match="cuModuleGetFunction: failed with CUDA_ERROR_NOT_FOUND"):
        Kernels("source", cuda=Driver(cuda)).run([Launch("unknown", (1, 1, 1), 32, ())], stream=0)
    cuda.current = 0
    with pytest.raises(EngineError, match="no context is current in this thread"):
        Kernels("source", cuda=Driver(cuda)).prepare()
    cuda.status = 100
    with pytest.raises(EngineError, match="cuInit: failed with CUDA_ERROR_NO_DEVICE"):
        Driver(cuda)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    driver.cache_clear()
    monkeypatch.setattr(driver_module.ctypes, "CDLL", refuse)
    with pytest.raises(EngineError, match=r"CUDA: libcuda.so.1: cannot open.*install NVIDIA's driver, or JetPack"):
        driver()


def test_problems_that_no_kernel_takes() -> None:
    with pytest.raises(InputError, match="got heads of 129, expected at most 128"):
        AttentionProblem(1, 1, 1, 1, 129, 1, 1.0)
    with pytest.raises(InputError, match=r"got sizes \(1, 1, 0, 1, 1\), expected N, H, Tq, Tk, D of at least 1"):
        AttentionProblem(1, 1, 0, 1, 1, 1, 1.0)
    with pytest.raises(InputError, match="keep: got 0, expected at least 1"):
        AttentionProblem(1, 1, 1, 1, 1, 0, 1.0)
    with pytest.raises(InputError, match=r"top-k mask: got sizes \(1, 0, 1, 1\)"):
        MaskProblem(1, 0, 1, 1, 1)
    with pytest.raises(InputError, match="keep: got -1"):
        MaskProblem(1, 1, 1, 1, -1)


@pytest.mark.parametrize(
    ("rows", "keep", "offsets", "message"),
    [
        ((9, 8), 1, (0,), "drop attention: got 9 queries and 8 keys, expected the same rows"),
        ((9, 9), 0, (), "keep: got 0, expected at least 1, or 0 and offsets"),
        ((9, 9), -1, (0,), "keep: got -1"),
        ((9, 9), 1, (0, 64), r"got offsets \(0, 64\), expected 0 to 63: the portable graph takes any"),
        ((9, 9), 1, (-1,), r"got offsets \(-1,\), expected 0 to 63"),
        ((0, 0), 1, (), r"drop attention: got sizes \(1, 1, 0, 0, 1\)"),
    ],
)
def test_drop_problems_that_no_kernel_takes(
    rows: tuple[int, int], keep: int, offsets: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        DropProblem(1, 1, *rows, 1, keep, 1.0, False, offsets)


def test_offsets_are_bits() -> None:
    """The last kernel's arguments before its result: a bit for each distance, and the largest."""
    for offsets, expected in (((0, 1, 3, 3), (0b1011, 3)), ((63,), (1 << 63, 63)), ((), (0, -1))):
        given = DropProblem(1, 1, 9, 9, 4, 1, 1.0, False, offsets)
        *_, bits, largest, context = given.launches([1] * 4, [2] * 2, 1, 1)[-1].arguments[:-5]
        assert (bits, largest, context) == (*expected, 2)
        assert (bits.dtype, largest.dtype) == (np.uint64, np.int32)


@pytest.mark.parametrize(("dim", "expected"), [(1, 32), (32, 32), (33, 64), (96, 96), (97, 128), (128, 128)])
def test_head_dims(dim: int, expected: int) -> None:
    assert AttentionProblem(1, 1, 1, 1, dim, 1, 1.0).head_dim == expected


def test_small_problems_take_small_blocks() -> None:
    """8 heads of 460 rows are 64 blocks of 64 rows: enough for a Jetson's 16 multiprocessors, too few for 132."""
    given = AttentionProblem(1, 8, 460, 20, 64, 10, 0.125)

    def blocks(processors: int) -> list[tuple[int, int]]:
        return [(launch.grid[0], launch.threads) for launch in given.launches([1] * 4, [1] * 2, 1, processors)]

    assert blocks(4) == [(64, 128), (8, 128), (8, 512), (64, 128)]
    assert blocks(16) == [(64, 128), (8, 64), (8, 512), (64, 128)]
    assert blocks(132) == [(120, 64), (8, 64), (8, 512), (120, 64)]


class Gpu:
    """Memory of the first GPU, in its primary context."""

    def __init__(self, cuda: Driver) -> None:
        self.cuda = cuda
        self.blocks: list[ctypes.c_uint64] = []
        device, context = ctypes.c_int(), ctypes.c_void_p()
        cuda.call("cuDeviceGet", ctypes.byref(device), 0)
        cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        cuda.call("cuCtxSetCurrent", context)

    def put(self, array: NDArray[Any]) -> int:
        """Copy an array there; return its address."""
        address = ctypes.c_uint64()
        self.cuda.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(array.nbytes))
        self.blocks.append(address)
        array = np.ascontiguousarray(array)
        self.cuda.call("cuMemcpyHtoD_v2", address, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))
        return address.value

    def get(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Copy an array back, after all kernels are done."""
        array = np.empty(shape, dtype)
        self.cuda.call("cuCtxSynchronize")
        target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self.cuda.call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), size)
        return array

    def free(self) -> None:
        for address in self.blocks:
            self.cuda.call("cuMemFree_v2", address)
        self.blocks.clear()


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    driver.cache_clear()
    try:
        found = Gpu(driver())
    except EngineError as error:
        pytest.skip(f"no CUDA GPU: {error}")
    yield found
    found.free()


def check_twice(inputs: Any, gpu: Gpu, checks: ModuleType, reference: ModuleType) -> None:
    """Run an attention: it is right, and the same to the last bit when it runs again."""
    given, dtype = inputs.problem, inputs.q.dtype
    placed = [gpu.put(array) for array in inputs.arrays]
    shapes = (inputs.q.shape, inputs.k.shape[:3])
    kernels = Kernels(given.source, {"HEAD_DIM": given.head_dim}, gpu.cuda)
    runs = []
    for _ in range(2):
        results = [gpu.put(np.full(shape, np.nan, dtype)) for shape in shapes]
        workspace = gpu.put(np.full(given.workspace_bytes, 0xFF, np.uint8))
        kernels.run(given.launches(placed, results, workspace, gpu.cuda.processors), stream=0)
        context, importance = (gpu.get(address, shape, dtype) for address, shape in zip(results, shapes, strict=True))
        kept = given.kept_keys(gpu.get(workspace, (given.workspace_bytes,), np.uint8))
        runs.append(checks.Outputs(context, importance, kept))
    checks.check(inputs, runs[0], reference)
    np.testing.assert_array_equal(runs[0].context, runs[1].context)
    np.testing.assert_array_equal(runs[0].importance, runs[1].importance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("sizes", "lengths", "keep"),
    [((2, 8, t, t, 64), (t, t // 2 + 1), max(1, t // 2)) for t in (1, 20, 230, 460, 1024)]
    + [((2, 3, 33, 70, 37), (70, 12), 35), ((1, 2, 100, 150, 128), (140,), 75), ((3, 8, 460, 20, 32), (0, 20, 7), 10)],
)
def test_attention_on_a_gpu(
    sizes: tuple[int, int, int, int, int],
    lengths: tuple[int, ...],
    keep: int,
    dtype: str,
    gpu: Gpu,
    checks: ModuleType,
    reference: ModuleType,
) -> None:
    check_twice(checks.draw(checks.problem(sizes, keep, dtype), lengths), gpu, checks, reference)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("sizes", "lengths", "keep", "offsets"),
    [((2, 8, t, 64), (t, t // 2 + 1), max(1, t // 10), (0, 1, 3)) for t in (1, 20, 230, 460, 1024)]
    + [((3, 8, 300, 128), (0, 300, 7), 30, (0, 2)), ((1, 3, 70, 37), (60,), 0, (0, 63)), ((1, 3, 70, 32), (), 7, ())],
)
def test_drop_attention_on_a_gpu(
    sizes: tuple[int, int, int, int],
    lengths: tuple[int, ...],
    keep: int,
    offsets: tuple[int, ...],
    dtype: str,
    gpu: Gpu,
    checks: ModuleType,
    reference: ModuleType,
) -> None:
    check_twice(checks.draw(checks.drop_problem(sizes, keep, offsets, dtype), lengths), gpu, checks, reference)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mask_on_a_gpu(dtype: str, gpu: Gpu, checks: ModuleType, reference: ModuleType) -> None:
    weights = np.random.default_rng(0).random((2, 4, 230, 460)).astype(dtype)
    given = MaskProblem(*weights.shape, 230, dtype == "float16")
    results = [gpu.put(np.full_like(weights, np.nan)), gpu.put(np.full_like(weights[:, :, 0], np.nan))]
    workspace = gpu.put(np.zeros(given.workspace_bytes, np.uint8))
    Kernels("top_k_mask", cuda=gpu.cuda).run(given.launches([gpu.put(weights)], results, workspace), stream=0)
    sums = weights.astype(np.float32).sum(axis=2, dtype=np.float32)
    checks.assert_near(gpu.get(results[1], sums.shape, dtype), sums, checks.TOLERANCE[dtype])
    masked = gpu.get(results[0], weights.shape, dtype)
    kept = masked.any(axis=2)
    assert (kept.sum(-1) >= 230).all()
    np.testing.assert_array_equal(masked, weights * kept[:, :, None])


def test_gpu_tests_read_what_was_written(attend: Callable[..., Any], checks: ModuleType) -> None:
    """`kept_keys` reads a workspace as the kernels wrote it, in order of samples and heads."""
    inputs = checks.draw(checks.problem((2, 2, 12, 18, 8), 5), (18, 6))
    outputs = attend(inputs)
    assert [len(row) for row in outputs.kept] == [5, 5, 5, 5]
    for row, sums in zip(outputs.kept, outputs.importance.reshape(4, 18), strict=True):
        assert set(row) == set(np.argsort(-sums)[:5])
