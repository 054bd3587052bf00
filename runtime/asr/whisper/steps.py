"""Whisper's decoder as graphs: opened once, then step by step through an utterance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr.whisper.files import CROSS, STEP
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import BundleError, InputError

MOST_ROWS = 1500  # 30 s, what Whisper's encoder hears at most

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """What the decoder gives for one token.

    Attributes:
        logits: `(tokens,)` float32 of the next one.
        attention: `(alignment heads, rows)` float32: where each looked.
    """

    logits: Array
    attention: Array


class DecoderGraphs:
    """The two graphs of a decoder.

    Args:
        read: Gives a file by name.
        open_graph: Opens a graph.

    Attributes:
        rows: The longest window, in rows of 20 ms.
        width: Of a row.
        places: The longest sequence of tokens.
        tokens: How many there are.

    Raises:
        BundleError: The files are not a Whisper recogniser's.
        EngineError: An engine refuses a graph.
    """

    def __init__(self, read: Callable[[str], bytes], open_graph: Callable[[bytes], Engine] = open_engine) -> None:
        self._cross = open_graph(read(CROSS))
        self._step = open_graph(read(STEP))
        inputs = {spec.name: spec.shape for spec in self._step.inputs}
        outputs = {spec.name: spec.shape for spec in (*self._cross.outputs, *self._step.outputs)}
        self._past = {
            name: (1, *(size or 0 for size in shape[1:])) for name, shape in inputs.items() if name.startswith("past_")
        }
        try:
            hidden = {spec.name: spec.shape for spec in self._cross.inputs}["hidden"]
            places, tokens = inputs["past_keys_0"][3], outputs["logits"][1]
            agree = all(outputs[name] == shape for name, shape in inputs.items() if name.startswith("cross_"))
            expected = {"token", "position", "heard", "cross_keys_0"} <= set(inputs)
            expected &= {"logits", "keys", "values", "alignment"} <= set(outputs)
        except (KeyError, IndexError) as error:
            raise BundleError(f"whisper: {CROSS} and {STEP} are not a recogniser's: no {error}") from error
        if not (agree and expected and len(hidden) == 3 and hidden[2] and places and tokens):
            raise BundleError(f"whisper: {CROSS} and {STEP} are not those of one recogniser: export it again")
        self._is_fixed = hidden[1] is not None
        self.rows, self.width = hidden[1] or MOST_ROWS, hidden[2]
        self.places, self.tokens = places, tokens

    def start(self, hidden: Array) -> Steps:
        """Begin an utterance.

        Args:
            hidden: `(rows, width)` of the encoder's window.

        Raises:
            InputError: The rows are too many, none, or of another width.
            EngineError: The engine failed.
        """
        fits = hidden.ndim == 2 and 1 <= hidden.shape[0] <= self.rows and hidden.shape[1] == self.width
        if not fits or hidden.dtype != np.float32:
            raise InputError(
                f"hidden: got {hidden.dtype} {hidden.shape}, expected float32 (1 to {self.rows}, {self.width})"
            )
        # Open rows are two at least: a graph whose rows may be one is a graph for one.
        padded = np.zeros((1, self.rows if self._is_fixed else max(2, hidden.shape[0]), self.width), np.float32)
        padded[0, : hidden.shape[0]] = hidden
        feeds: dict[str, NDArray[Any]] = self._cross.run({"hidden": padded})
        feeds |= {name: np.zeros(shape, np.float32) for name, shape in self._past.items()}
        feeds["heard"] = np.array([hidden.shape[0]], np.int32)
        return Steps(self._step, feeds, self.places)

    def close(self) -> None:
        """Free the engines; a second call does nothing."""
        self._cross.close()
        self._step.close()


class Steps:
    """One utterance: its cache, which grows by a token with each step.

    Attributes:
        count: How many were done.
    """

    def __init__(self, engine: Engine, feeds: dict[str, NDArray[Any]], places: int) -> None:
        self._engine = engine
        self._feeds = feeds
        self._places = places
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no place for another."""
        return self.count >= self._places

    def say(self, token: int) -> Step:
        """Run one step, and write this token's keys and values into the cache.

        Raises:
            InputError: The cache is full.
            EngineError: The engine failed.
        """
        if self.is_full:
            raise InputError(f"whisper: got a token more than the {self._places} that its cache has places for")
        self._feeds["token"] = np.array([token], np.int32)
        self._feeds["position"] = np.array([self.count], np.int32)
        answer = self._engine.run(self._feeds)
        for layer in range(answer["keys"].shape[1]):
            self._feeds[f"past_keys_{layer}"][..., self.count] = answer["keys"][:, layer]
            self._feeds[f"past_values_{layer}"][:, :, self.count] = answer["values"][:, layer]
        self.count += 1
        return Step(answer["logits"][0], answer["alignment"][0])
