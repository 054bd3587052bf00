"""Whether a bundle's model was trained for rows without their running mean, and what is taken out of them."""

from __future__ import annotations

import functools

import numpy as np

from edgeser.runtime.adaptation import Adaptation
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.manifest import Manifest
from edgeser.runtime.running_mean import RunningMean

NONE, RUN, SPEAKER = "none", "run", "speaker"
NORMALIZE = NONE
"""What is done where nobody says, with bundles whose models were trained for it."""


class Normalization:
    """What a bundle's manifest says about the mean of what was heard.

    Args:
        manifest: The bundle's.
        name: The bundle's, for errors.
        adaptation: What it has learned of a user; with the user's mean, that is where every state begins.
    """

    def __init__(self, manifest: Manifest, name: str, adaptation: Adaptation | None = None) -> None:
        self._manifest = manifest
        self._name = name
        self._adaptation = adaptation

    @property
    def is_trained(self) -> bool:
        """Whether the model was trained for rows without their mean."""
        audio = self._manifest.inputs.get("audio")
        return audio is not None and audio.mean_prior is not None

    @property
    def prior(self) -> float:
        """Utterances that the training mean counts as; see `check` for the error."""
        self.check()
        return float(self._manifest.inputs["audio"].mean_prior or 0.0)

    def check(self) -> None:
        """Raise `InputError` when the model was not trained for rows without their mean."""
        if not self.is_trained:
            raise InputError(
                f"normalize: {self._name} has no mean_prior: its model was not trained for rows without their mean, "
                f"expected {NONE}, and no state"
            )

    @functools.cached_property
    def encoder(self) -> str:
        """What the state of a running mean is bound to."""
        return self._manifest.encoder_sha256()

    def open_state(self) -> RunningMean:
        """Return a state that has heard nothing, or what the bundle was adapted to; see `check` for the error."""
        self.check()
        if self._adaptation is not None and self._adaptation.heard is not None:
            return RunningMean(self.encoder, self._adaptation.heard, self._adaptation.count)
        return RunningMean(self.encoder, np.zeros(self._manifest.inputs["audio"].dim))

    def chosen(self, normalize: str | None, state: RunningMean | None = None) -> str:
        """Return what is done: what was asked for, `run` with a state, or the default.

        Raises:
            InputError: The model was not trained for it, or the state is another encoder's.
        """
        if state is not None:
            self.shift(state)
            return RUN
        if normalize is None:
            return NORMALIZE if self.is_trained else NONE
        if normalize != NONE:
            self.check()
        return normalize

    def begin(self, normalize: str | None, state: RunningMean | None = None) -> RunningMean | None:
        """Return the state that something begins with, a copy of its own; `None` where nothing is taken out of rows.

        Raises:
            InputError: See `chosen`.
        """
        if self.chosen(normalize, state) == NONE:
            return None
        return self.open_state() if state is None else state.copy()

    @functools.cached_property
    def own_shift(self) -> Rows | None:
        """What is taken out of every row where there is no state: the user's mean that the bundle was adapted with."""
        if self._adaptation is None or self._adaptation.heard is None:
            return None
        return self.shift(self.open_state())

    def shift(self, state: RunningMean) -> Rows:
        """Return what a state takes out of every row, `(dim,)` float32.

        Raises:
            InputError: The state is another encoder's, or the model was not trained for that.
        """
        prior = self.prior
        state.check(self.encoder, self._manifest.inputs["audio"].dim)
        return state.shift(prior)


def check_normalize(normalize: str | None, state: RunningMean | None = None, more: tuple[str, ...] = ()) -> None:
    """Find out whether a choice is one, and goes with a state.

    Args:
        normalize: `None` leaves it to the default.
        state: Where there is one.
        more: Choices beside `NONE` and `RUN`; a state goes with neither of them.

    Raises:
        InputError: It is not, or does not.
    """
    choices = (NONE, RUN, *more)
    if normalize is not None and normalize not in choices:
        raise InputError(f"normalize: got {normalize!r}, expected {', '.join(choices)}")
    if state is not None and normalize not in (None, RUN):
        raise InputError(f"normalize: got a state with {normalize}, expected {RUN}: or leave the state out")
