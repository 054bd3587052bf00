"""Ranges beside definitions of their own, on the values themselves wherever there are any, and beside ONNX Runtime's.

Definitions: Migacz, "8-bit inference with TensorRT", GTC 2017, for entropy; rounding to nearest over 127 steps to
either side, and saturating beyond them, for the mean squared error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from edgeser.calibration.histogram import BINS, Histogram
from edgeser.calibration.ranges import METHODS, Method, Range
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel, Statistics

COUNT = 200_003  # no share of it in hundredths of a percent is a whole number, where rounding would choose the rank
OUTLIERS = (40.0, -35.0, 30.0, 38.0)


def gelu(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))


KINDS: Mapping[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "gaussian": lambda rng: rng.normal(size=COUNT),
    "laplacian": lambda rng: rng.laplace(size=COUNT),
    "relu": lambda rng: np.maximum(rng.normal(size=COUNT), 0.0),
    "gelu": lambda rng: gelu(rng.normal(size=COUNT)),
    "negative": lambda rng: -rng.exponential(size=COUNT),
    "heavy": lambda rng: rng.standard_t(3, size=COUNT),
    "outliers": lambda rng: np.concatenate([rng.normal(size=COUNT - len(OUTLIERS)), OUTLIERS]),
}
REAL = ("log-mel", "energies")
ALL = (*KINDS, *REAL)


@pytest.fixture(scope="module")
def data(speech: Samples) -> Mapping[str, NDArray[np.float32]]:
    """Activations of the usual shapes, and a clip's: log-mel energies as they are and normalised."""
    energies = LogMel(80).extract(speech)
    made = {name: draw(np.random.default_rng(0)).astype(np.float32) for name, draw in KINDS.items()}
    return {**made, "energies": energies, "log-mel": Statistics.of([energies]).normalise(energies)}


def histogram_of(values: NDArray[np.floating]) -> Histogram:
    histogram = Histogram()
    for piece in np.array_split(values.ravel(), 3):
        histogram.add(piece)
    return histogram


@pytest.mark.parametrize("kind", ALL)
def test_minmax_is_exact(data: Mapping[str, NDArray[np.float32]], kind: str) -> None:
    values = data[kind]
    found = Method("minmax").range(histogram_of(values))
    assert found == Range(min(0.0, float(values.min())), max(0.0, float(values.max())))
    assert found.magnitude == np.abs(values).max()


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.9, 99.99, 99.999])
@pytest.mark.parametrize("kind", ALL)
def test_percentile_is_numpys(data: Mapping[str, NDArray[np.float32]], kind: str, percentile: float) -> None:
    """At most one bin above the quantile of the values themselves, never below it."""
    values = data[kind].ravel().astype(np.float64)
    histogram = histogram_of(values)
    quantile = np.quantile(np.abs(values), percentile / 100.0, method="inverted_cdf")
    found = Method("percentile", percentile).range(histogram)
    assert quantile <= found.magnitude <= quantile + histogram.width
    assert found == Range(max(histogram.low, -found.magnitude), min(histogram.high, found.magnitude))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-2000, 2000), min_size=1, max_size=100),
    st.floats(1.0, 100.0) | st.sampled_from([25.0, 50.0, 75.0]),
)
@example([3, -5], 50.0)  # half of the values are at most 3: that is enough
def test_percentile_of_few(values: list[int], percentile: float) -> None:
    """In bins 1 wide or less, so that the quantile is the lower edge of its bin."""
    array = np.array(values, np.float64)
    histogram = histogram_of(array)
    quantile = np.quantile(np.abs(array), percentile / 100.0, method="inverted_cdf")
    threshold = min(quantile + histogram.width, histogram.peak)
    assert Method("percentile", percentile).range(histogram) == Range(
        max(histogram.low, -threshold), min(histogram.high, threshold)
    )


def test_everything_is_inside_at_100_percent() -> None:
    values = np.array([0.1] * 1000 + [-7.0])
    assert Method("percentile", 100.0).range(histogram_of(values)) == Range(-7.0, 0.1)


def divergence(counts: list[int], bins: int) -> float:
    """Kullback-Leibler divergence of the counts cut at a bin from the same in 128 levels, in nats, bin by bin."""
    reference = [float(count) for count in counts[:bins]]
    reference[-1] += sum(counts[bins:])
    spread = [0.0] * bins
    for level in range(128):
        # Level l holds the bins b with floor(128 b / bins) = l.
        places = [b for b in range(-(-level * bins // 128), -(-(level + 1) * bins // 128)) if counts[b]]
        for place in places:
            spread[place] = sum(counts[b] for b in places) / len(places)
    whole, whole_spread = sum(reference), sum(spread)
    terms = []
    for p, q in zip(reference, spread, strict=True):
        if p and not q:
            return math.inf
        if p:
            terms.append(p / whole * math.log(p / whole * whole_spread / q))
    return math.fsum(terms)


@pytest.mark.parametrize("kind", ALL)
def test_entropy_is_migaczs(data: Mapping[str, NDArray[np.float32]], kind: str) -> None:
    """The first of the smallest divergences, over 100 candidates, filled bins from the 128th to the last."""
    histogram = histogram_of(data[kind])
    counts = histogram.counts.tolist()
    ends = [place + 1 for place, count in enumerate(counts) if count and place + 1 >= 128]
    candidates = [ends[round(turn * (len(ends) - 1) / 99)] for turn in range(100)]
    best = min(candidates, key=lambda bins: divergence(counts, bins))
    threshold = min(best * histogram.width, histogram.peak)
    expected = Range(max(histogram.low, -threshold), min(histogram.high, threshold))
    found = Method("entropy").range(histogram)
    assert found == expected
    assert (type(found.low), type(found.high)) == (float, float), "NumPy's numbers print otherwise"


WORSE = 1.01  # how much larger than the smallest squared error ours may be: 100 thresholds are tried


def squared_error(values: NDArray[np.float64], threshold: float) -> float:
    """What rounding to INT8 and back does to the values."""
    step = threshold / 127
    return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))


def best_squared_error(values: NDArray[np.float64]) -> float:
    """Search thresholds from 1/100 of the peak, then closely about the best."""
    peak = float(np.abs(values).max())
    coarse = min(np.linspace(0.01, 1.0, 60) * peak, key=lambda threshold: squared_error(values, threshold))
    fine = coarse + np.linspace(-0.02, 0.02, 21) * peak
    return min(squared_error(values, threshold) for threshold in fine if threshold > 0.0)


@pytest.mark.parametrize("kind", ALL)
def test_mse_is_next_to_the_best_for_the_values_themselves(data: Mapping[str, NDArray[np.float32]], kind: str) -> None:
    values = data[kind].ravel().astype(np.float64)
    found = squared_error(values, Method("mse").range(histogram_of(values)).magnitude)
    assert found <= WORSE * best_squared_error(values)


@pytest.mark.parametrize("threshold", [1.5, 3.0])
def test_mse_of_sparse_activations(threshold: float) -> None:
    """A ReLU that lets 7 % or 0.1 % of the values through."""
    values = np.maximum(np.random.default_rng(0).normal(size=COUNT) - threshold, 0.0)
    found = squared_error(values, Method("mse").range(histogram_of(values)).magnitude)
    assert found <= 1.1 * best_squared_error(values)


def onnx_runtimes(values: NDArray[np.float32], method: str, bins: int) -> tuple[float, float]:
    """ONNX Runtime's own range: percentile 99.99 of magnitudes, or entropy with 128 levels to either side."""
    collector = HistogramCollector(method, True, bins, 256, 99.99, None)
    collector.collect({"x": values})
    low, high, *_ = collector.compute_collection_result()["x"]
    return float(low), float(high)


@pytest.mark.parametrize("kind", ALL)
def test_percentile_is_onnx_runtimes(data: Mapping[str, NDArray[np.float32]], kind: str) -> None:
    """Within a bin of each: theirs ends at the lower edge of the quantile's bin, ours at the upper."""
    values = data[kind].ravel()
    histogram = histogram_of(values)
    low, high = onnx_runtimes(values, "percentile", BINS)
    found = Method("percentile", 99.99).range(histogram)
    tolerance = histogram.width + histogram.peak / BINS
    assert 0.0 <= found.high - max(high, 0.0) <= tolerance
    assert 0.0 <= min(low, 0.0) - found.low <= tolerance


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("gaussian", 0.2), ("laplacian", 0.5), ("relu", 0.25), ("gelu", 0.15), ("outliers", 0.02), ("log-mel", 0.2)],
)
def test_entropy_is_close_to_onnx_runtimes(
    data: Mapping[str, NDArray[np.float32]], kind: str, tolerance: float
) -> None:
    """In bins as wide as ours.

    Not closer: theirs tries every bin, ours 100 of them; theirs fills empty bins with 0.0001, where ours passes over
    cuts that end on an empty bin; theirs rounds what it spreads to whole counts, and leaves out of it the bins that
    remain after dividing by the levels, up to 255 of them. The divergence is flat near its smallest, so all of this
    shows in the threshold.
    """
    values = data[kind].ravel()
    histogram = histogram_of(values)
    low, high = onnx_runtimes(values, "entropy", 2 * math.ceil(histogram.peak / histogram.width))
    assert Method("entropy").range(histogram).magnitude == pytest.approx(max(-low, high), rel=tolerance)


def test_entropy_cuts_heavy_tails_like_onnx_runtime(data: Mapping[str, NDArray[np.float32]]) -> None:
    """Far out, where most bins are empty, the two differ by up to twice; both give up more than half of the range."""
    histogram = histogram_of(data["heavy"])
    low, high = onnx_runtimes(data["heavy"], "entropy", 2 * math.ceil(histogram.peak / histogram.width))
    theirs, ours = max(-low, high), Method("entropy").range(histogram).magnitude
    assert max(theirs, ours) < 0.5 * histogram.peak
    assert 0.5 < ours / theirs < 2.0


def test_entropy_cuts_outliers_of_a_small_corpus() -> None:
    """Of 50,000 values 4 are ten times the others; among all bins a cut at 4.1 is the best."""
    values = np.concatenate([np.random.default_rng(0).normal(size=50_000), OUTLIERS])
    histogram = histogram_of(values)
    counts = histogram.counts.tolist()
    best = min((bins for bins in range(128, BINS) if counts[bins - 1]), key=lambda bins: divergence(counts, bins))
    assert Method("entropy").range(histogram).magnitude <= 2.0 * best * histogram.width


ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
BY_ANY_METHOD = pytest.mark.parametrize("method", METHODS)


@BY_ANY_METHOD
@settings(max_examples=100, deadline=None)
@given(values=st.lists(ANY, min_size=1, max_size=40), sign=st.sampled_from(["both", "above", "below"]))
def test_ranges_hold_zero_and_nothing_unseen(method: str, values: list[float], sign: str) -> None:
    """Cut at one magnitude on both sides, clipped to what was seen; 0 is the end of one-sided values."""
    array = np.array(values)
    array = {"both": array, "above": np.abs(array), "below": -np.abs(array)}[sign]
    found = Method(method, percentile=70.0).range(histogram_of(array))
    assert min(0.0, array.min()) <= found.low <= 0.0 <= found.high <= max(0.0, array.max())
    assert found.low == 0.0 or sign != "above"
    assert found.high == 0.0 or sign != "below"
    assert (type(found.low), type(found.high)) == (float, float)
    if found.magnitude < np.abs(array).max():
        assert found.low == max(array.min(initial=0.0), -found.magnitude)
        assert found.high == min(array.max(initial=0.0), found.magnitude)


@BY_ANY_METHOD
@pytest.mark.parametrize("kind", ["gaussian", "gelu", "negative", "outliers"])
def test_ranges_scale_with_the_values(data: Mapping[str, NDArray[np.float32]], method: str, kind: str) -> None:
    """By powers of two, which change no digit."""
    found = Method(method).range(histogram_of(data[kind]))
    for scale in (2.0**-100, 2.0**100):
        scaled = Method(method).range(histogram_of(data[kind] * np.float32(scale)))
        assert scaled == Range(found.low * scale, found.high * scale)


@BY_ANY_METHOD
def test_zeros_alone(method: str) -> None:
    found = Method(method).range(histogram_of(np.zeros(100)))
    assert found == Range(0.0, 0.0)
    assert str(found.magnitude) == "0.0"  # not -0.0


@BY_ANY_METHOD
def test_one_value_alone_stays_inside(method: str) -> None:
    assert Method(method).range(histogram_of(np.full(100, -3.0))).low == pytest.approx(-3.0, rel=0.02)


@BY_ANY_METHOD
def test_nothing_seen(method: str) -> None:
    with pytest.raises(InputError, match="ranges: got no activations, expected at least one utterance's"):
        Method(method).range(Histogram())


@pytest.mark.parametrize("name", ["", "MinMax", "kl", "mse "])
def test_unknown_methods(name: str) -> None:
    with pytest.raises(InputError, match=f"--method: got '{name}', expected one of minmax, percentile, entropy, mse"):
        Method(name)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.01, math.nan, math.inf])
def test_impossible_percentiles(percentile: float) -> None:
    with pytest.raises(
        InputError, match=rf"--percentile: got {percentile}, expected above 0 and at most 100, for example 99\.99"
    ):
        Method("percentile", percentile)


def test_default_method() -> None:
    assert Method() == Method("minmax", 99.99)
    assert tuple(METHODS) == ("minmax", "percentile", "entropy", "mse")


def test_magnitude_is_the_larger_side() -> None:
    assert (Range(-1.0, 2.0).magnitude, Range(-3.0, 2.0).magnitude, Range(0.0, 0.5).magnitude) == (2.0, 3.0, 0.5)
