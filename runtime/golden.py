"""Golden vectors: real inputs and reference outputs that travel in the bundle, for every engine to prove itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import Asr
from edgeser.runtime.audio import Samples
from edgeser.runtime.bundle import GOLDEN, Bundle
from edgeser.runtime.engines import Engine
from edgeser.runtime.errors import BundleError, InputError, ParityError
from edgeser.runtime.frontends import Frontend, Rows, SpeechEncoder, TextEncoder
from edgeser.runtime.frontends.onnx_encoder import KIND as ENCODER
from edgeser.runtime.manifest import PRECISIONS, InputEntry
from edgeser.runtime.names import escaped
from edgeser.runtime.tensors import from_safetensors, to_safetensors

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1e-1}
"""Largest |logit difference| that an engine may show, by the looser precision of bundle and engine."""
ENCODER_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-1}
"""Largest root-mean-square difference of an encoder's rows, in standard deviations of the expected ones. They are
stored in half precision, which alone makes 3e-4."""

_FULL_SCALE = 32768
_STORED_INPUTS = {"speech": ("int16", "float32"), "text": ("int32",)}
_ROWS = (np.float16, np.float32)
_MOST_VECTORS = 1000
_MOST_VALUES = 1 << 27  # numbers of all inputs, padded: 512 MB
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EncoderVectors:
    """One utterance for an encoder.

    Attributes:
        input: What the frontend's `extract` takes: `(samples,)` float32 mono at 16 kHz, or `(tokens + 2,)` int32 ids
            with the start and end tokens.
        rows: `(n, dim)` float32, what it must give: not normalised, without padding.
    """

    input: NDArray[Any]
    rows: Rows

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return what is stored: samples as 16-bit PCM where that is exact, rows in half precision."""
        given = _to_pcm(self.input)
        with np.errstate(over="ignore"):
            half = self.rows.astype(np.float16)
        return {"input": given, "rows": half if np.isfinite(half).all() else self.rows}

    def anew(self, frontend: Frontend) -> EncoderVectors:
        """Return the same utterance with the rows that another encoder gives for it, an INT8 one for example."""
        if not isinstance(frontend, (SpeechEncoder, TextEncoder)):
            raise InputError(f"encoder vectors: got {type(frontend).__name__}, expected a SpeechEncoder or TextEncoder")
        return EncoderVectors(self.input, frontend.extract(self.input))

    @classmethod
    def from_tensors(cls, given: NDArray[Any], rows: NDArray[Any]) -> EncoderVectors:
        """Read what `to_tensors` gave."""
        return cls(_from_pcm(given), rows.astype(np.float32))


@dataclass(frozen=True)
class GoldenWords:
    """One utterance for the recogniser.

    Attributes:
        input: `(samples,)` float32 mono at 16 kHz.
        text: What it must hear.
    """

    input: Samples
    text: str

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return what is stored: samples as 16-bit PCM where that is exact, the text in UTF-8."""
        return {"input": _to_pcm(self.input), "text": np.frombuffer(self.text.encode(), np.uint8)}

    @classmethod
    def of(cls, asr: Asr, samples: Samples) -> GoldenWords | None:
        """Return what a recogniser hears; `None` where that is nothing."""
        text = asr.hear(samples).text
        return cls(samples, text) if text else None


@dataclass(frozen=True)
class GoldenVectors:
    """Reference inputs and outputs.

    Attributes:
        inputs: The graph's inputs, one batch.
        logits: `(N, classes)` float32, what they must give.
        reference: `(N, classes)` float32, what the model gave before it was quantized, for comparison; `None` where
            `logits` are that.
        encoders: By modality, for frontends that are encoders; bundles from before there were any have none.
        words: For the recogniser that the bundle brings, where it brings one.
    """

    inputs: Mapping[str, NDArray[np.generic]]
    logits: NDArray[np.float32]
    reference: NDArray[np.float32] | None = None
    encoders: Mapping[str, EncoderVectors] = field(default_factory=dict)
    words: GoldenWords | None = None

    def to_bytes(self) -> bytes:
        """Return the safetensors form: without padding, and in half precision where nothing is lost by it."""
        tensors: dict[str, NDArray[Any]] = {f"input.{name}": self._packed(name) for name in self.inputs}
        tensors["logits"] = self.logits
        if self.reference is not None:
            tensors["reference"] = self.reference
        for name, vectors in self.encoders.items():
            tensors.update({f"encoder.{name}.{part}": value for part, value in vectors.to_tensors().items()})
        if self.words is not None:
            tensors.update({f"recogniser.{part}": value for part, value in self.words.to_tensors().items()})
        return to_safetensors(tensors)

    def _packed(self, name: str) -> NDArray[np.generic]:
        value = self.inputs[name]
        if value.dtype != np.float32:
            return value
        value = value[:, : int(self.inputs[f"{name}_length"].max(initial=0))]
        half = value.astype(np.float16)
        return half if np.array_equal(half.astype(np.float32), value) else value

    @classmethod
    def from_bundle(cls, bundle: Bundle, count: int | None = None) -> GoldenVectors:
        """Read a bundle's golden vectors.

        Args:
            bundle: The bundle.
            count: How many vectors to give, and to look through for NaN; `None` for all.

        Raises:
            BundleError: There are none, or they do not fit the bundle.
        """
        tensors = _tensors(bundle)
        for name in ("logits", "reference"):
            if (name == "logits" or name in tensors) and not _are_logits(tensors.get(name), bundle):
                raise _unusable(bundle, f"no {name} of (N, {len(bundle.manifest.labels)}) finite float32")
        logits, reference = tensors["logits"], tensors.get("reference")
        if reference is not None and reference.shape != logits.shape:
            raise _unusable(bundle, f"reference {reference.shape}, logits {logits.shape}")
        inputs = _inputs(bundle, tensors, len(logits), count)
        reference = None if reference is None else reference[:count]
        return cls(inputs, logits[:count], reference, _encoders(bundle, tensors), _words(bundle, tensors))


def encoder_vectors(frontend: Frontend, heard: Samples | str) -> EncoderVectors:
    """Run an utterance through an encoder, to keep what it gave.

    Args:
        frontend: A `SpeechEncoder` or a `TextEncoder`.
        heard: `(samples,)` float32 mono at 16 kHz for the one, a transcript for the other.

    Raises:
        InputError: Too short for a row, or not what the frontend takes.
    """
    if isinstance(frontend, SpeechEncoder) and not isinstance(heard, str):
        given: NDArray[Any] = heard[: frontend.samples_for(frontend.length)]
    elif isinstance(frontend, TextEncoder) and isinstance(heard, str):
        given = frontend.ids(frontend.tokens(heard))
    else:
        raise InputError(f"encoder vectors: got {type(heard).__name__} for {type(frontend).__name__}")
    return EncoderVectors(given, frontend.extract(given))


def verify_engine(engine: Engine, bundle: Bundle, count: int | None = None) -> float:
    """Run the golden vectors through an engine.

    Args:
        engine: An engine opened on one of the bundle's graphs.
        bundle: The bundle.
        count: How many vectors to run; `None` for all.

    Returns:
        The largest |logit difference|.

    Raises:
        ParityError: It is above `TOLERANCE`.
        EngineError: The engine fails, or gives what is no number.
    """
    golden = GoldenVectors.from_bundle(bundle, count)
    logits = engine.run(golden.inputs)["logits"]
    expected = golden.logits
    if logits.shape != expected.shape:
        raise _unusable(bundle, f"logits {expected.shape}, the graph gives {logits.shape}")
    difference = float(np.abs(logits - expected).max())
    limit = TOLERANCE[looser(engine.precision, bundle)]
    if not difference <= limit:
        raise ParityError(
            f"{engine.name}: golden vectors differ by {difference:.2e}, at most {limit:.0e} is expected: "
            "this engine does not compute this model on this device"
        )
    return difference


def looser(precision: str, bundle: Bundle) -> str:
    """Return what an engine of a precision is held to: a plan may be less exact than its bundle, or the other way."""
    return max(precision, bundle.manifest.precision, key=PRECISIONS.index)


def verify_frontend(frontend: Frontend, vectors: EncoderVectors, precision: str) -> float:
    """Run an encoder's vectors through it.

    Args:
        frontend: A `SpeechEncoder` or a `TextEncoder`, opened with the engine in question.
        vectors: Its vectors.
        precision: See `looser`.

    Returns:
        The root-mean-square difference of the rows, in standard deviations of the expected rows.

    Raises:
        ParityError: It is above `ENCODER_TOLERANCE`; or there are more or fewer rows.
        EngineError: The engine fails, or gives what is no number.
    """
    if not isinstance(frontend, (SpeechEncoder, TextEncoder)):
        raise InputError(f"encoder vectors: got {type(frontend).__name__}, expected a SpeechEncoder or TextEncoder")
    rows = frontend.extract(vectors.input)
    who = f"{frontend.engine.name}: encoder {frontend.options().get('name')}"
    if rows.shape != vectors.rows.shape:
        raise ParityError(f"{who} gives rows {rows.shape}, its golden vectors are {vectors.rows.shape}")
    expected = vectors.rows.astype(np.float64)
    difference = float(np.sqrt(np.mean((rows - expected) ** 2)) / expected.std())
    limit = ENCODER_TOLERANCE[precision]
    if not difference <= limit:
        raise ParityError(
            f"{who}: golden rows differ by {difference:.2e} standard deviations, at most {limit:.0e} is expected: "
            "this engine does not compute this encoder on this device"
        )
    return difference


def verify_recogniser(asr: Asr, words: GoldenWords, engine: str) -> None:
    """Let the bundle's recogniser hear its golden words.

    Args:
        asr: The recogniser, opened with the engine in question.
        words: Its golden words.
        engine: The engine's name.

    Raises:
        ParityError: It hears others.
        AsrError: It fails.
    """
    heard = asr.hear(words.input).text
    if heard != words.text:
        raise ParityError(
            f"{engine}: {asr.name} hears {heard!r:.80} where it must hear {words.text!r:.80}: "
            "this engine does not compute this recogniser on this device"
        )


@dataclass(frozen=True)
class Proof:
    """How near an engine comes to all golden vectors of a bundle.

    Attributes:
        logits: The largest |logit difference|.
        rows: By modality of the encoders that have vectors, the difference that `verify_frontend` found.
    """

    logits: float
    rows: Mapping[str, float]


def prove(engine: Engine, frontends: Mapping[str, Frontend], bundle: Bundle, asr: Asr | None = None) -> Proof:
    """Run all golden vectors through an engine and the encoders that it opened.

    Args:
        engine: Of the model.
        frontends: By modality.
        bundle: The bundle.
        asr: The recogniser that the bundle brings, where it is to hear.

    Raises:
        BundleError: The vectors do not fit the engine or the encoders.
        ParityError: The engine does not compute what the bundle says.
        EngineError: It fails, or gives what is no number.
    """
    logits = verify_engine(engine, bundle)
    golden = GoldenVectors.from_bundle(bundle)
    encoders = golden.encoders
    precision = looser(engine.precision, bundle)
    try:
        rows = {n: verify_frontend(frontends[n], vectors, precision) for n, vectors in encoders.items()}
    except InputError as error:  # ids that the encoder does not know, for example
        raise _unusable(bundle, str(error)) from error
    if asr is not None and golden.words is not None:
        verify_recogniser(asr, golden.words, engine.name)
    return Proof(logits, rows)


def unproved(bundle: Bundle) -> tuple[str, ...]:
    """Return the modalities whose encoders have no golden vectors: what an engine makes of them is not known.

    `words` is among them where a recogniser has none.
    """
    golden = GoldenVectors.from_bundle(bundle)
    encoders = (name for name, entry in bundle.manifest.inputs.items() if entry.frontend.get("kind") == ENCODER)
    has_words = bundle.manifest.recogniser is None or golden.words is not None
    return (*(name for name in encoders if name not in golden.encoders), *(() if has_words else ("words",)))


def _tensors(bundle: Bundle) -> Tensors:
    try:
        return from_safetensors(bundle.read(GOLDEN))
    except (ValueError, BundleError) as error:
        raise _unusable(bundle, str(error)) from error


def _are_logits(logits: NDArray[Any] | None, bundle: Bundle) -> bool:
    return (
        logits is not None
        and logits.ndim == 2
        and 1 <= logits.shape[0] <= _MOST_VECTORS
        and logits.shape[1] == len(bundle.manifest.labels)
        and logits.dtype == np.float32
        and bool(np.isfinite(logits).all())
    )


def _inputs(bundle: Bundle, tensors: Tensors, stored: int, count: int | None) -> dict[str, NDArray[np.generic]]:
    """Take the model's inputs, check all that are stored, and pad as many as are asked for again."""
    entries = bundle.manifest.inputs
    expected = {f"input.{name}{part}" for name in entries for part in ("", "_length")}
    if other := sorted({name for name in tensors if name.startswith("input.")} - expected):
        raise _unusable(bundle, f"{escaped(other[0]):.60}: the model has no such input")
    if stored * sum(entry.length * entry.dim for entry in entries.values()) > _MOST_VALUES:
        raise _unusable(bundle, f"{stored} vectors are more than {_MOST_VALUES:,} numbers")
    inputs: dict[str, NDArray[np.generic]] = {}
    for name, entry in entries.items():
        packed, valid = tensors.get(f"input.{name}"), tensors.get(f"input.{name}_length")
        if packed is None or not _are_rows(packed, entry) or len(packed) != stored:
            raise _unusable(bundle, f"no input {name} of {entry.length} x {entry.dim} for {stored} vectors")
        if valid is None or not _are_lengths(valid, entry) or len(valid) != stored:
            raise _unusable(bundle, f"no input {name}_length of ({stored},) int32, 0 to {entry.length}")
        rows = np.zeros((len(packed[:count]), entry.length, entry.dim), dtype=np.float32)
        rows[:, : packed.shape[1]] = packed[:count]
        if not np.isfinite(rows).all():
            raise _unusable(bundle, f"input {name} holds NaN or infinity")
        inputs |= {name: rows, f"{name}_length": valid[:count]}
    return inputs


def _are_rows(packed: NDArray[Any], entry: InputEntry) -> bool:
    return (
        packed.ndim == 3 and packed.shape[1] <= entry.length and packed.shape[2] == entry.dim and packed.dtype in _ROWS
    )


def _are_lengths(valid: NDArray[Any], entry: InputEntry) -> bool:
    return valid.ndim == 1 and valid.dtype == np.int32 and bool(((valid >= 0) & (valid <= entry.length)).all())


def _encoders(bundle: Bundle, tensors: Tensors) -> dict[str, EncoderVectors]:
    """Take the encoders' vectors, of those that have any."""
    found = {}
    for name, entry in bundle.manifest.inputs.items():
        given, rows = tensors.get(f"encoder.{name}.input"), tensors.get(f"encoder.{name}.rows")
        if given is None and rows is None:
            continue
        if given is None or rows is None or not _usable(entry, given, rows):
            raise _unusable(bundle, f"no rows up to {entry.length} x {entry.dim} of the encoder of {name}, or no input")
        found[name] = EncoderVectors.from_tensors(given, rows)
    return found


def _words(bundle: Bundle, tensors: Tensors) -> GoldenWords | None:
    """Take the recogniser's golden words, where there are any."""
    given, text = tensors.get("recogniser.input"), tensors.get("recogniser.text")
    if given is None and text is None:
        return None
    is_audio = given is not None and given.ndim == 1 and str(given.dtype) in _STORED_INPUTS["speech"] and given.size > 0
    is_text = text is not None and text.ndim == 1 and text.dtype == np.uint8 and text.size > 0
    if given is None or text is None or not (is_audio and is_text and bool(np.isfinite(given).all())):
        raise _unusable(bundle, "no words of the recogniser, or no input")
    try:
        return GoldenWords(_from_pcm(given), text.tobytes().decode())
    except UnicodeDecodeError as error:
        raise _unusable(bundle, f"the recogniser's words are no text: {error}") from error


def _to_pcm(given: NDArray[Any]) -> NDArray[Any]:
    """Return samples as 16-bit PCM where that is exact, and anything else as it is."""
    if given.dtype != np.float32:
        return given
    pcm, limits = np.rint(given * np.float32(_FULL_SCALE)), np.iinfo(np.int16)
    fits = limits.min <= pcm.min() and pcm.max() <= limits.max
    return pcm.astype(np.int16) if fits and np.array_equal(pcm / np.float32(_FULL_SCALE), given) else given


def _from_pcm(given: NDArray[Any]) -> NDArray[Any]:
    return given.astype(np.float32) / np.float32(_FULL_SCALE) if given.dtype == np.int16 else given


def _usable(entry: InputEntry, given: NDArray[Any], rows: NDArray[Any]) -> bool:
    stored = _STORED_INPUTS.get(str(entry.frontend.get("input")), ())
    return (
        entry.frontend.get("kind") == ENCODER
        and given.ndim == 1
        and str(given.dtype) in stored
        and given.shape[0] >= 1
        and bool(np.isfinite(given).all())
        and rows.dtype in _ROWS
        and rows.shape[1:] == (entry.dim,)
        and 1 <= rows.shape[0] <= entry.length
        and 0 < float(rows.std(dtype=np.float64)) < np.inf
    )


def _unusable(bundle: Bundle, why: str) -> BundleError:
    return BundleError(f"{bundle.path}: {GOLDEN} is not usable: {why}")
