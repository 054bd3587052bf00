"""The attention kernels on a CUDA GPU: right at every length, and how fast beside their peers.

  python benchmarks/gpu/kernels.py -o kernels.md
  python benchmarks/gpu/kernels.py --batches 1,8,64 --length 460 --dim 64 --keep-rate 0.5
  python benchmarks/gpu/kernels.py --offsets 0,1,3 --dim 128 --keep-rate 0.1

Key-sparse attention; with `--offsets`, drop attention with these distances in its static mask. Needs PyTorch with
CUDA, and nvcc or NVRTC. First, the kernels are checked against double precision at the lengths 1, 20, 230, 460 and
1024. Then they are timed, call by call in turn, against PyTorch eager, `torch.compile` and dense
`scaled_dot_product_attention`, without and with a mask of padded keys; dense attention leaves out the importance and
the selection. Each is captured as a CUDA graph, so that times are the GPU's and not Python's; `--no-graph` starts them
anew. Status 1: a check failed; 2: bad usage, or no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeser.export_tools.plugins.driver import driver
from edgeser.export_tools.plugins.kernels import Kernels
from edgeser.export_tools.plugins.launches import AttentionProblem, DropProblem

if TYPE_CHECKING:  # only with a GPU
    import torch
    from torch import Tensor

CHECKED_LENGTHS = (1, 20, 230, 460, 1024)
TOLERANCES = {"float32": 1e-5, "float16": 2e-3}  # of the largest value
PEERS = ("eager", "compile", "dense", "dense masked")
Call = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What to run; see `--help`."""

    batches: tuple[int, ...]
    length: int
    heads: int
    dim: int
    keep_rate: float
    offsets: tuple[int, ...] | None
    dtypes: tuple[str, ...]
    repeats: int
    graph: bool
    output: Path | None


@dataclass(frozen=True)
class Check:
    """The largest error of a result, relative to its largest value."""

    dtype: str
    length: int
    context: float
    importance: float

    @property
    def is_right(self) -> bool:
        """Whether both are within the tolerance; NaN is not."""
        return self.context <= TOLERANCES[self.dtype] and self.importance <= TOLERANCES[self.dtype]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, median, by name: `fused` and the peers; a peer that failed is missing."""

    dtype: str
    batch: int
    times_ms: Mapping[str, float]


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=_positives, default=(1, 2, 4, 8, 16, 32, 64), help="N, by default 1,2,…,64")
    parser.add_argument("--length", type=_positive, default=460, help="Tq and Tk of the times")
    parser.add_argument("--heads", type=_positive, default=8)
    parser.add_argument("--dim", type=_positive, default=64, help="D, width of a head, at most 128")
    parser.add_argument("--keep-rate", type=float, default=0.5, help="share of the keys that stay")
    parser.add_argument("--offsets", type=_offsets, help="drop attention with these distances, for example 0,1,3")
    parser.add_argument("--dtypes", default="float32,float16", help="float32, float16 or both")
    parser.add_argument("--repeats", type=_positive, default=50, help="timed calls of each")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="start kernels anew for each call")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file; by default only printed")
    found = parser.parse_args(arguments)
    found.dtypes = tuple(found.dtypes.split(","))
    if unknown := sorted(set(found.dtypes) - set(TOLERANCES)):
        parser.error(f"--dtypes: got {', '.join(unknown)}, expected {' or '.join(TOLERANCES)}")
    if not 0 < found.keep_rate <= 1:
        parser.error(f"--keep-rate: got {found.keep_rate}, expected above 0 and at most 1")
    return Options(**vars(found))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected at least 1")
    return number


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _offsets(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def problem(batch: int, length: int, options: Options, dtype: str) -> AttentionProblem:
    """Return what there is to compute: key-sparse attention, or drop attention where there are offsets."""
    keep, scale = max(1, int(length * options.keep_rate)), options.dim**-0.5
    sizes = (batch, options.heads, length, length, options.dim, keep, scale, dtype == "float16")
    return AttentionProblem(*sizes) if options.offsets is None else DropProblem(*sizes, options.offsets)


class Fused:
    """The kernels on tensors of one shape: inputs, outputs and workspace stay where they are, as in an engine."""

    def __init__(self, given: AttentionProblem, q: Tensor, k: Tensor, v: Tensor, key_length: Tensor) -> None:
        import torch

        self.problem = given
        self.inputs = [q, k, v, key_length]
        self.outputs = [torch.full_like(q, torch.nan), torch.full_like(k[..., 0], torch.nan)]
        self.workspace = torch.zeros(self.problem.workspace_bytes, dtype=torch.uint8, device=q.device)
        self.kernels = Kernels(self.problem.source, {"HEAD_DIM": self.problem.head_dim})
        addresses = [[tensor.data_ptr() for tensor in tensors] for tensors in (self.inputs, self.outputs)]
        processors = driver().processors
        self.launches = self.problem.launches(*addresses, self.workspace.data_ptr(), processors)

    def __call__(self) -> None:
        import torch

        self.kernels.run(self.launches, torch.cuda.current_stream().cuda_stream)

    def kept(self) -> Tensor:
        """Which keys the last call kept, `(N, H, Tk)`."""
        import torch

        given = self.problem
        kept = torch.zeros(given.batch * given.heads, given.keys, dtype=torch.bool)
        for row, places in zip(kept, given.kept_keys(self.workspace.cpu().numpy()), strict=True):
            row[torch.from_numpy(places.copy()).long()] = True
        return kept.reshape(given.batch, given.heads, given.keys).to(self.workspace.device)


def draw(batch: int, length: int, options: Options, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return normal q, k, v on the GPU."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    shape = (3, batch, options.heads, length, options.dim)
    q, k, v = torch.randn(shape, generator=generator, device="cuda").to(getattr(torch, dtype)).contiguous()
    return q, k, v


def check(length: int, options: Options, dtype: str) -> Check:
    """Compare the kernels with double precision, for the keys that they kept, on a full and a ragged sample."""
    import torch

    from edgeser.nn.attention import attention_weights

    q, k, v = draw(2, length, options, dtype)
    key_length = torch.tensor([length, length // 2 + 1], dtype=torch.int32, device="cuda")
    given = problem(2, length, options, dtype)
    fused = Fused(given, q, k, v, key_length)
    fused()
    torch.cuda.synchronize()
    weights = attention_weights(q.double(), k.double(), key_length, given.scale)
    kept = fused.kept()
    mask = kept.unsqueeze(2)
    if isinstance(given, DropProblem):
        place = torch.arange(length, device="cuda")
        weights = weights * (place < key_length[:, None])[:, None, :, None]
        offsets = torch.tensor(given.offsets, device="cuda")
        mask = mask & kept.unsqueeze(3) | torch.isin((place[:, None] - place).abs(), offsets)
    expected = [torch.matmul(weights * mask, v.double()), weights.sum(dim=2)]
    errors = [
        float((found.double() - want).abs().max() / want.abs().max())
        for found, want in zip(fused.outputs, expected, strict=True)
    ]
    return Check(dtype, length, *errors)


def peers(given: AttentionProblem, q: Tensor, k: Tensor, v: Tensor, key_length: Tensor) -> dict[str, Call]:
    """Return what the kernels are timed against."""
    import torch
    from torch.nn import functional

    from edgeser.nn.attention import drop_attention, key_sparse_attention

    scale = given.scale
    arguments: tuple[Any, ...] = (q, k, v, key_length, given.keep, scale)
    eager: Callable[..., Any] = key_sparse_attention
    if isinstance(given, DropProblem):
        arguments = (q, k, v, key_length, given.keep, given.offsets, scale)
        eager = drop_attention
    compiled = torch.compile(eager, dynamic=False)
    mask = (torch.arange(k.shape[2], device=k.device) < key_length[:, None])[:, None, None, :]
    return {
        "eager": lambda: eager(*arguments),
        "compile": lambda: compiled(*arguments),
        "dense": lambda: functional.scaled_dot_product_attention(q, k, v, scale=scale),
        "dense masked": lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale),
    }


def captured(call: Call) -> Call:
    """Return a call that replays another one's kernels."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, loads and chooses before the capture, which allows none of it
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def time_one(batch: int, options: Options, dtype: str) -> Timing:
    """Time the kernels and their peers at one batch size, in turn."""
    import torch

    q, k, v = draw(batch, options.length, options, dtype)
    key_length = torch.full((batch,), options.length, dtype=torch.int32, device="cuda")
    arguments = (problem(batch, options.length, options, dtype), q, k, v, key_length)
    calls: dict[str, Call] = {}
    for name, call in {"fused": Fused(*arguments), **peers(*arguments)}.items():
        try:
            calls[name] = captured(call) if options.graph else call
            calls[name]()
            torch.cuda.synchronize()
        except Exception as error:
            if name == "fused":
                raise
            calls.pop(name, None)
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
    samples: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in calls}
    for repeat in range(options.repeats + 5):
        for name, call in calls.items():
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            call()
            events[1].record()
            if repeat >= 5:  # the first ones warm up
                samples[name].append(events)
    torch.cuda.synchronize()
    medians = {name: statistics.median(a.elapsed_time(b) for a, b in pairs) for name, pairs in samples.items()}
    return Timing(dtype, batch, medians)


def report(device: str, options: Options, checks: Sequence[Check], timings: Sequence[Timing]) -> str:
    """Return the results in Markdown; peers as ratios, above 1 where the kernels are faster."""
    operator, mask = "Key-sparse", ""
    if options.offsets is not None:
        operator, mask = "Drop", f", offsets {', '.join(map(str, options.offsets))}"
    lines = [
        f"## {operator} attention on {device}",
        "",
        f"{options.heads} heads of {options.dim}, keep rate {options.keep_rate:g}{mask}. "
        "Errors are relative to the largest value.",
        "",
        "| type | length | error of context | of importance | tolerance | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {c.dtype} | {c.length} | {c.context:.1e} | {c.importance:.1e} | {TOLERANCES[c.dtype]:.0e} | "
        f"{'right' if c.is_right else 'WRONG'} |"
        for c in checks
    ]
    lines += [
        "",
        f"Length {options.length}, median of {options.repeats} calls"
        f"{' as CUDA graphs' if options.graph else ''}; peers as multiples of the kernels' time.",
        "",
        f"| type | batch | kernels, ms | {' | '.join(PEERS)} |",
        f"|---|---:|---:|{'---:|' * len(PEERS)}",
    ]
    for timing in timings:
        fused = timing.times_ms["fused"]
        ratios = (f"{timing.times_ms[peer] / fused:.2f}" if peer in timing.times_ms else "failed" for peer in PEERS)
        lines.append(f"| {timing.dtype} | {timing.batch} | {fused:.4f} | {' | '.join(ratios)} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> int:
    """Check, time, report."""
    options = parse(arguments)
    try:
        import torch
    except ImportError:
        print("benchmark: PyTorch is not installed, expected it with CUDA", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print(f"benchmark: PyTorch {torch.__version__} sees no CUDA GPU", file=sys.stderr)
        return 2
    torch.zeros(1, device="cuda")  # makes the context current that the kernels are loaded into
    with torch.inference_mode():
        checks = [check(length, options, dtype) for dtype in options.dtypes for length in CHECKED_LENGTHS]
        timings = [time_one(batch, options, dtype) for dtype in options.dtypes for batch in options.batches]
    name = f"{torch.cuda.get_device_name()} ({driver().arch}), PyTorch {torch.__version__}"
    text = report(name, options, checks, timings)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0 if all(found.is_right for found in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
