"""`onnx-encoder`: a pretrained speech or text encoder, run as a graph by the same engines as the model.

An encoder's graph has a symbolic batch and otherwise fixed sizes:

- speech: `samples` `(N, S)` float32 at 16 kHz -> `rows` `(N, length, dim)`;
- text: `ids` `(N, window + 2)` int32, with the tokenizer's start and end tokens -> `rows` `(N, length, dim)`, those of
  the tokens between the two, or with `pool` one row for the whole line, `(N, 1, dim)`;
- where the encoder masks its padding, `samples_length` or `ids_length` `(N,)` int32 beside it.

`edgeser export-encoder` writes such graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import (
    AudioFrontend,
    Extracted,
    Frontend,
    OpenGraph,
    ReadFile,
    TextFrontend,
    Token,
    option,
)
from edgeser.runtime.frontends.speech_rows import at_speech_level, rows_of_speech
from edgeser.runtime.frontends.statistics import STATISTICS, Rows, Statistics
from edgeser.runtime.onnx_wire import embedding_rows

KIND = "onnx-encoder"
GRAPH = "encoder.onnx"
TOKENIZER = "tokenizer.json"
ROWS, HIDDEN = "rows", "hidden"  # a graph's outputs: what the model gets, and what a recogniser reads
NORMALISATIONS = ("none", "zero-mean-unit-variance")
POOLS = ("start", "mean")
LARGEST_PAUSE_DB = 120.0
LEVELS_DB = (-60.0, 0.0)
_LEVELS = {"lowest_level_db", "highest_level_db"}
_FEWEST = 2  # rows of a window: a graph whose rows may be one is a graph for one
_MOST_IDS = 1 << 31
_LONGEST_S = 60.0  # that one row may stand for
_PANIC = "PanicException"


class _Encoder:
    """An opened encoder graph; its file is kept as a way to read it, not as a second copy in memory.

    Attributes:
        ids: How many ids its tables know, where it looks its input up in any.
        sizes: What its input may be padded to, the shortest first.
    """

    def __init__(self, length: int, read: ReadFile, open_graph: OpenGraph, sizes: tuple[int, ...] = ()) -> None:
        self.read = read
        graph = read(GRAPH)
        self.engine: Engine = open_graph(graph)
        rows = embedding_rows(graph, "ids")
        self.ids = _MOST_IDS if rows is None else rows
        outputs = {spec.name: spec.shape for spec in self.engine.outputs}
        shape = outputs.get(ROWS, ())
        fits = len(shape) == 3 and (shape[1] == length or (shape[1] is None and bool(sizes)))
        if not fits or shape[2] is None:
            raise BundleError(f"{KIND}: the graph gives {outputs}, expected rows (N, {length}, dim)")
        self.dim = shape[2]
        shapes = [spec.shape for spec in self.engine.inputs]
        given = shapes[0][1] if shapes and len(shapes[0]) == 2 else 0
        self.sizes = sizes if given is None else (given,)

    @property
    def size(self) -> int:
        """What its input is padded to at most; 0 where that is nothing it could be."""
        return self.sizes[-1] if self.sizes else 0

    def run(self, name: str, values: NDArray[Any], padding: float) -> dict[str, NDArray[Any]]:
        """Pad one utterance, `(n,)` with n up to `size`, to the nearest size, and return what the graph gives of it."""
        valid = values.shape[0]
        padded = np.full(next(size for size in self.sizes if size >= valid), padding, dtype=values.dtype)
        padded[:valid] = values
        feeds = {name: padded[None]}
        if len(self.engine.inputs) > 1:
            feeds[f"{name}_length"] = np.array([valid], dtype=np.int32)
        return {output: value[0] for output, value in self.engine.run(feeds).items()}

    def takes(self, name: str, dtype: str) -> bool:
        """Whether the graph's inputs are `name` and at most its length."""
        inputs = [(spec.name, spec.dtype) for spec in self.engine.inputs]
        return inputs in ([(name, dtype)], [(name, dtype), (f"{name}_length", "int32")])


class SpeechEncoder(AudioFrontend):
    """Runs a speech encoder over a window of fixed length; shorter audio is padded with silence.

    Args:
        length: Rows the model gets.
        description: What the manifest keeps: `name` and `architecture` of the encoder, `layer` that was exported,
            `hop_s` and `window_s` of a row in seconds, `normalisation` of the samples (one of `NORMALISATIONS`),
            `windows`, rows that the graph may be run over, where it takes any: the shortest that holds an utterance is,
            `pause_db` where rows so far under the loudest one are left out (see `rows_of_speech`), `lowest_level_db`
            and `highest_level_db` where speech is brought between two levels before it is heard (see
            `at_speech_level`), and whatever else its exporter wrote.
        read: Gives the graph.
        open_graph: Opens it.
        statistics: Of the rows over a training corpus; `None` leaves them as they are.

    Raises:
        BundleError: The description or the graph is not a speech encoder's.
        EngineError: The engine refuses the graph.
    """

    kind = KIND

    def __init__(
        self,
        length: int,
        description: Mapping[str, Any],
        read: ReadFile,
        open_graph: OpenGraph = open_engine,
        statistics: Statistics | None = None,
    ) -> None:
        self.length = length
        self.hop_s = option(description, "hop_s", float)
        self.window_s = option(description, "window_s", float)
        self._normalisation = option(description, "normalisation", str)
        self._pause_db = option(description, "pause_db", float) if "pause_db" in description else None
        self._levels_db = _levels(description)
        usable = all(1 / SAMPLE_RATE <= seconds <= _LONGEST_S for seconds in (self.hop_s, self.window_s))
        if self._pause_db is not None and not 0.0 < self._pause_db <= LARGEST_PAUSE_DB:
            raise BundleError(f"{KIND}: pause_db {self._pause_db}, expected above 0 to {LARGEST_PAUSE_DB:g}")
        if self._normalisation not in NORMALISATIONS or not usable:
            raise BundleError(
                f"{KIND}: normalisation {self._normalisation!r}, hop {self.hop_s}, window {self.window_s}"
            )
        self._description = dict(description)
        sizes = tuple(self.samples_for(rows) for rows in _windows(description, length))
        self._encoder = _Encoder(length, read, open_graph, sizes)
        self.dim = self._encoder.dim
        if not self._encoder.takes("samples", "float32") or self._encoder.size != self.samples_for(length):
            raise BundleError(
                f"{KIND}: the graph takes {self.engine.inputs}, "
                f"expected samples (N, {self.samples_for(length)}) for {length} rows"
            )
        self.statistics = statistics or Statistics.none(self.dim)
        self.statistics.check(self.dim)

    @property
    def engine(self) -> Engine:
        """What runs its graph."""
        return self._encoder.engine

    @property
    def widths(self) -> dict[str, int | None]:
        """How wide the rows of each of the graph's outputs are."""
        return {spec.name: spec.shape[-1] for spec in self.engine.outputs}

    def extract(self, samples: Samples) -> Rows:
        return self.extract_all(samples).rows

    def run(self, samples: Samples) -> dict[str, Rows]:
        """Return what the graph gives for the first window of `(samples,)`, by output: `(rows, width)`, padding too.

        Raises:
            InputError: Shorter than one row.
            EngineError: The engine failed.
        """
        self.check(samples)
        heard = samples[: self._encoder.size]
        if self._levels_db is not None:
            heard = at_speech_level(heard, round(self.hop_s * SAMPLE_RATE), self.samples_for(1), *self._levels_db)
        if self._normalisation == "zero-mean-unit-variance":
            heard = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
        return self._encoder.run("samples", heard.astype(np.float32), 0.0)

    def extract_all(self, samples: Samples) -> Extracted:
        outputs, heard = self.run(samples), samples[: self._encoder.size]
        hop, window = round(self.hop_s * SAMPLE_RATE), self.samples_for(1)
        rows, hidden = outputs[ROWS][: 1 + (heard.shape[0] - window) // hop], outputs.get(HIDDEN)
        if self._pause_db is None:
            return Extracted(rows, None, hidden)
        places = rows_of_speech(heard, hop, window, self._pause_db)
        return Extracted(rows[places], places, hidden)

    def with_statistics(self, statistics: Statistics) -> SpeechEncoder:
        return SpeechEncoder(self.length, self._description, self._encoder.read, lambda _: self.engine, statistics)

    def options(self) -> dict[str, Any]:
        return {**self._description, "input": "speech"}

    def files(self) -> dict[str, bytes]:
        return {GRAPH: self._encoder.read(GRAPH), STATISTICS: self.statistics.to_bytes()}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> SpeechEncoder:
        try:
            return cls(length, _described(options), read, open_graph, Statistics.from_bytes(read(STATISTICS)))
        except InputError as error:
            raise BundleError(f"{KIND}: {STATISTICS} is not usable: {error}") from error

    def close(self) -> None:
        self.engine.close()


class TextEncoder(TextFrontend):
    """Cuts a transcript with the encoder's own tokenizer and runs the encoder over it.

    Args:
        length: Rows the model gets: as many as tokens are read, without the start and end tokens; or 1 for the line.
        description: What the manifest keeps: `name` and `architecture` of the encoder, `layer` that was exported,
            the ids `start`, `end` and `padding`, `pool` where its graph gives one row for the whole line (`start`:
            that of the start token, `mean`: the mean over all), and whatever else its exporter wrote.
        read: Gives the graph and the tokenizer.
        open_graph: Opens the graph.

    Raises:
        BundleError: The description, the graph or the tokenizer is not a text encoder's.
        EngineError: The engine refuses the graph.
    """

    kind = KIND

    def __init__(
        self, length: int, description: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph = open_engine
    ) -> None:
        from tokenizers import Tokenizer

        self.length = length
        self._description = dict(description)
        self._start, self._end, self._padding = (option(description, n, int) for n in ("start", "end", "padding"))
        self._is_pooled = "pool" in description
        if self._is_pooled and (description["pool"] not in POOLS or length != 1):
            raise BundleError(
                f"{KIND}: pool {description['pool']!r} of {length} rows, expected {' or '.join(POOLS)} of 1"
            )
        with _tokenizing():
            self._tokenizer = Tokenizer.from_str(read(TOKENIZER).decode())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # in spite of its name: `[SEP]` in a transcript is three tokens
        self._encoder = _Encoder(length, read, open_graph)
        self.dim = self._encoder.dim
        size = self._encoder.size
        if not self._encoder.takes("ids", "int32") or size < 3 or (size != length + 2 and not self._is_pooled):
            expected = "window + 2" if self._is_pooled else length + 2
            raise BundleError(f"{KIND}: the graph takes {self.engine.inputs}, expected ids (N, {expected})")
        self._check_ids()

    @property
    def engine(self) -> Engine:
        """What runs its graph."""
        return self._encoder.engine

    @property
    def window(self) -> int:
        return self._encoder.size - 2

    def _check_ids(self) -> None:
        """Every id must be one that the graph knows: an engine may read past a table's end for another."""
        for name, number in (("start", self._start), ("end", self._end), ("padding", self._padding)):
            if not 0 <= number < self._encoder.ids:
                raise BundleError(f"{KIND}: {name} is {number}, the graph knows 0 to {self._encoder.ids - 1}")
        count = self._tokenizer.get_vocab_size()
        # Ids without a gap need no list of all of them, which takes twice as long.
        if count > self._encoder.ids or None in map(self._tokenizer.id_to_token, range(count)):
            token, last = max(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
            if last >= self._encoder.ids:
                known = f"the graph knows 0 to {self._encoder.ids - 1}"
                raise BundleError(f"{KIND}: {TOKENIZER} gives {token[:40]!r} the id {last}, {known}")
        self.tokens("Fine, 7 ☃")  # one that knows no unknown word is found out here

    def tokens(self, transcript: str) -> list[Token]:
        with _tokenizing():
            cut = self._tokenizer.encode(transcript, add_special_tokens=False)
        return [Token(text, start, end) for text, (start, end) in zip(cut.tokens, cut.offsets, strict=True)]

    def ids(self, tokens: list[Token]) -> NDArray[np.int32]:
        """Return what the graph takes for the first `window` tokens: `(tokens + 2,)` int32, between start and end.

        Raises:
            InputError: The encoder has no such token.
        """
        ids = [self._start]
        for token in tokens[: self.window]:
            known = self._tokenizer.token_to_id(token.text)
            if known is None:
                raise InputError(f"{KIND}: {token.text!r} is no token of {self._description.get('name')}")
            ids.append(known)
        return np.array([*ids, self._end], dtype=np.int32)

    def extract(self, ids: NDArray[np.int32]) -> Rows:
        """Return `(tokens, dim)` float32 rows, or one for the line, for the `(tokens + 2,)` int32 that `ids` gave.

        Raises:
            InputError: There is no token, or there are too many, or an id that the graph does not know.
        """
        valid = ids.shape[0]
        if not 3 <= valid <= self._encoder.size:
            raise InputError(f"ids: got {valid}, expected 3 to {self._encoder.size}: start, tokens, end")
        if ids.min() < 0 or ids.max() >= self._encoder.ids:
            raise InputError(f"ids: got {ids.min()} to {ids.max()}, expected 0 to {self._encoder.ids - 1}")
        rows: Rows = self._encoder.run("ids", ids, self._padding)[ROWS]
        return rows[: self.length if self._is_pooled else valid - 2]

    def rows(self, tokens: list[Token]) -> Rows:
        if not tokens:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self.extract(self.ids(tokens))

    def options(self) -> dict[str, Any]:
        return {**self._description, "input": "text"}

    def files(self) -> dict[str, bytes]:
        return {name: self._encoder.read(name) for name in (GRAPH, TOKENIZER)}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> TextEncoder:
        return cls(length, _described(options), read, open_graph)

    def close(self) -> None:
        self.engine.close()


@contextlib.contextmanager
def _tokenizing() -> Iterator[None]:
    """Raise what the tokenizer's library raises as ours: plain `Exception`, or a panic of its Rust code."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, BundleError) or not (isinstance(error, Exception) or type(error).__name__ == _PANIC):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BundleError(f"{KIND}: {TOKENIZER} is not usable: {reason}") from error


def restore_encoder(length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> Frontend:
    """Make the speech or text encoder that a manifest describes."""
    kinds: dict[str, type[Frontend]] = {"speech": SpeechEncoder, "text": TextEncoder}
    kind = kinds.get(str(options.get("input")))
    if kind is None:
        raise BundleError(f"{KIND}: got input {options.get('input')!r}, expected speech or text")
    return kind.restore(length, options, read, open_graph)


def _windows(description: Mapping[str, Any], length: int) -> tuple[int, ...]:
    """Return the rows that a graph may be run over, where a description has them."""
    if "windows" not in description:
        return ()
    windows = description["windows"]
    problem = windows_problem(windows, length)
    if problem is not None:
        raise BundleError(f"{KIND}: windows {windows!r:.60}: {problem}")
    return tuple(windows)


def windows_problem(windows: Any, length: int) -> str | None:
    """Return what is wrong with the rows that a graph may be run over; `None` where nothing is."""
    are_rows = isinstance(windows, (list, tuple)) and all(type(rows) is int and rows >= _FEWEST for rows in windows)
    if not (are_rows and windows and sorted(set(windows)) == list(windows) and windows[-1] == length):
        return f"expected rows in rising order, {_FEWEST} at least, up to {length}"
    return None


def _levels(description: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lowest and the highest level of speech, where a description has them."""
    if not _LEVELS & description.keys():
        return None
    lowest, highest = (option(description, name, float) for name in ("lowest_level_db", "highest_level_db"))
    if not LEVELS_DB[0] <= lowest <= highest <= LEVELS_DB[1]:
        raise BundleError(
            f"{KIND}: levels from {lowest:g} to {highest:g} dB, expected {LEVELS_DB[0]:g} to {LEVELS_DB[1]:g}, the "
            "lower one first"
        )
    return lowest, highest


def _described(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("kind", "input", "length")}
