"""Two speech encoders that hear the same samples; their rows stand side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgeser.export_tools.encoders.encoder import Encoder
from edgeser.export_tools.encoders.whisper import WhisperEncoder
from edgeser.runtime.errors import InputError

_SAME = ("hop_s", "window_s", "normalisation")


class SideBySide(Encoder):
    """Encoders that differ in what they know tell a voice's emotion better together than the better one alone.

    Args:
        first: A speech encoder.
        second: Another one, of as many rows at the same times. Where both are Whisper's, the log-mel is computed once.

    Raises:
        InputError: They do not go together.
    """

    input = "speech"
    learned = None

    def __init__(self, first: Encoder, second: Encoder) -> None:
        super().__init__()
        ours, theirs = first.describe(), second.describe()
        differing = [name for name in _SAME if ours.get(name) != theirs.get(name)]
        if second.input != self.input or differing or first.masks_padding != second.masks_padding:
            raise InputError(
                f"--beside: got {second.architecture} beside {first.architecture}, expected a speech encoder with the "
                f"same {', '.join(differing) or 'inputs'}"
            )
        self.architecture = "+".join(dict.fromkeys([first.architecture, second.architecture]))
        self.layers = max(first.layers, second.layers)
        self.masks_padding = first.masks_padding
        self.first, self.second = first, second
        self._shares_mel = (
            isinstance(first, WhisperEncoder)
            and isinstance(second, WhisperEncoder)
            and first.log_mel.bins == second.log_mel.bins
        )

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        if self._shares_mel:
            assert isinstance(self.first, WhisperEncoder)
            assert isinstance(self.second, WhisperEncoder)
            mel = self.first.log_mel(values)
            rows = [one.choice.pick(one.hidden_of_mel(mel, one.choice.depth)) for one in (self.first, self.second)]
        else:
            rows = [self.first(values, valid), self.second(values, valid)]
        return torch.cat(rows, dim=-1)

    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        raise InputError("--beside: two encoders have no layers in common: give each its own")

    def describe(self) -> dict[str, Any]:
        return self.first.describe()
