"""How a model is trained: every number in one place."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgeser.runtime.errors import InputError
from edgeser.training.augment import EncoderAugmentation, LogMelAugmentation
from edgeser.training.copies import WaveAugmentation
from edgeser.training.domains import MeanShift
from edgeser.training.sampler import Sampling

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "step", "constant")
SELECTIONS = ("wa", "ua", "wf1")

_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "select_by": SELECTIONS}
_SHARES = ("text_drop", "audio_drop", "word_drop", "mark_drop", "label_smoothing", "warmup_share", "average_decay")
_AMOUNTS = ("patience", "weight_decay", "gradient_clip", "part_weight", "linear_c")


@dataclass(frozen=True)
class Recipe:
    """Optimisation and regularisation.

    Attributes:
        epochs: Passes over the recordings; in each, every recording comes once, with one of its lines.
        batch_size: Utterances a step, of each process.
        optimizer: `adamw`, `adam` or `sgd`.
        learning_rate: The peak, reached after `warmup_share` of the steps, then along `schedule`.
        betas: AdamW's and Adam's.
        momentum: SGD's.
        warmup_share: Share of all steps.
        schedule: `cosine` to 0, in a `step` down every so many epochs, or `constant`.
        step_epochs: Of schedule `step`: epochs between two falls.
        step_factor: Of schedule `step`: what the learning rate falls to, as a share.
        weight_decay: AdamW's; of Adam and SGD the weight of an L2 penalty.
        gradient_clip: Largest norm of all gradients together; 0 for any.
        class_weights: Whether the loss weighs every class the same, however rare.
        label_smoothing: Mass moved from the label to all classes.
        part_weight: Weight of the loss of each of a model's parts beside the loss of the whole.
        linear_c: Inverse strength of the L2 penalty with which the skip from the voice's mean row is fitted as logistic
            regression and fixed before the network trains, see `edgeser.training.linear`; 0 trains it with the rest.
        average_decay: Decay of the exponential moving average of the weights; the average is what is kept. 0 keeps
            the weights themselves.
        select_by: Where a protocol has a validation split, the accuracy that the kept epoch is best by: `wa`, `ua` or
            `wf1`; of equals the first.
        patience: Where a protocol has a validation split, epochs without a better one before training stops; 0 for any.
        text_drop: Share of the samples that train without words, so that the model degrades to audio alone.
        audio_drop: Share of the samples that train without audio, so that words are learned too.
        word_drop: Share of the words left out of a line.
        mark_drop: Share of the lines that lose their `!` and `?`, as if a recogniser had written them.
        borrow: Share of the draws of a recording without a transcript that train with a line that another says with
            the same emotion; the others train without words.
        neutral_lines: Share of the draws with voice and words whose line is a neutral one, whatever the voice: what
            emotional voices say is often neutral to read, and a corpus that pairs lines by emotion teaches otherwise.
        balance: What an epoch has equally much of, one within the other: some of `corpus`, `emotion`, `speaker`;
            empty for every recording once.
        epoch_size: Recordings drawn an epoch; 0 for as many as there are.
        mean_prior: Utterances that the training mean counts as when the mean of a sample's domain is taken out of its
            rows of audio, see `edgeser.training.domains`; 0 takes nothing out.
        cold_share: With `mean_prior`, share of the samples that nothing is taken out of.
        mean_domain: With `mean_prior`, whose mean it is: the `corpus`'s, the `speaker`'s, or `both`, drawn.
        mean_recordings: With `mean_prior`, most recordings that a mean is of.
        skewed_share: With `mean_prior`, share of the means whose recordings have unequal shares of the emotions.
        copies: Copies of every recording that train beside it, each under a condition that `wave` draws.
        clean_share: With `copies`, share of the draws that take the recording itself, not one of its copies.
        seed: Of weights, order and augmentation; copies are drawn by `wave.seed`.
        log_mel: Augmentation of log-mel energies.
        encoder: Augmentation of a speech encoder's rows.
        wave: Augmentation of the audio itself, of copies.
    """

    epochs: int = 40
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    warmup_share: float = 0.1
    schedule: str = "cosine"
    step_epochs: int = 30
    step_factor: float = 0.5
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    class_weights: bool = True
    label_smoothing: float = 0.1
    part_weight: float = 1.0
    linear_c: float = 0.0
    average_decay: float = 0.98
    select_by: str = "wa"
    patience: int = 0
    text_drop: float = 0.15
    audio_drop: float = 0.1
    word_drop: float = 0.1
    mark_drop: float = 0.5
    borrow: float = 0.0
    neutral_lines: float = 0.0
    balance: tuple[str, ...] = ()
    epoch_size: int = 0
    mean_prior: float = MeanShift.prior
    cold_share: float = MeanShift.cold_share
    mean_domain: str = MeanShift.domain
    mean_recordings: int = MeanShift.recordings
    skewed_share: float = MeanShift.skewed_share
    copies: int = 0
    clean_share: float = Sampling.clean_share
    seed: int = 1
    log_mel: LogMelAugmentation = field(default_factory=LogMelAugmentation)
    encoder: EncoderAugmentation = field(default_factory=EncoderAugmentation)
    wave: WaveAugmentation = field(default_factory=WaveAugmentation)

    def augmentation(self, frontend: str) -> LogMelAugmentation | EncoderAugmentation:
        """Return the augmentation for a kind of audio frontend."""
        return self.log_mel if frontend == "log-mel" else self.encoder

    @property
    def sampling(self) -> Sampling:
        """How an epoch is drawn."""
        return Sampling(self.seed, self.balance, self.epoch_size, self.clean_share)

    @property
    def mean_shift(self) -> MeanShift:
        """How the mean of a sample's domain is drawn."""
        return MeanShift(self.mean_prior, self.cold_share, self.mean_domain, self.mean_recordings, self.skewed_share)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.step_epochs < 1:
            raise InputError(
                f"recipe: got {self.epochs} epochs of batches of {self.batch_size}, a step every {self.step_epochs} "
                "epochs, expected at least 1"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"recipe: got {name} {getattr(self, name)!r}, expected one of {', '.join(known)}")
        for name in _SHARES:
            _check(name, getattr(self, name), below=1.0)
        if self.copies < 0:
            raise InputError(f"recipe: got {self.copies} copies, expected 0 or more")
        for name in ("borrow", "neutral_lines"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"recipe: got {name} {getattr(self, name)}, expected 0 to 1")
        _ = self.sampling, self.mean_shift  # which check what they are of
        for name, value in (("momentum", self.momentum), *(("betas", beta) for beta in self.betas)):
            _check(name, value, below=1.0)
        for name in _AMOUNTS:
            _check(name, getattr(self, name))
        for name in ("learning_rate", "step_factor"):
            if not getattr(self, name) > 0.0:
                raise InputError(f"recipe: got {name} {getattr(self, name)}, expected more than 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Make a recipe of TOML's or JSON's plain values; `log_mel`, `encoder` and `wave` are tables of their own.

        Raises:
            InputError: A name is unknown, or a value does not fit.
        """
        return _read(cls, values, "recipe")


def _check(name: str, value: float, below: float = float("inf")) -> None:
    if not 0.0 <= value < below:
        raise InputError(f"recipe: got {name} {value}, expected 0 {'to below 1' if below == 1.0 else 'or more'}")


_T = TypeVar("_T", Recipe, LogMelAugmentation, EncoderAugmentation, WaveAugmentation)
_KINDS: Mapping[Any, tuple[Any, str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
}


def _read(kind: type[_T], values: Mapping[str, Any], where: str) -> _T:
    """Make a dataclass of plain values."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: got {values!r}, expected a table of names and values")
    hints = typing.get_type_hints(kind)
    known = [one.name for one in dataclasses.fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"{where}: got unknown {', '.join(map(str, unknown))}, expected some of {', '.join(known)}")
    read = {name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    return kind(**read)


def _value(hint: Any, value: Any, where: str) -> Any:
    """Bring a plain value to what a field's hint asks for."""
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast("type[Recipe]", hint), value, where)
    if typing.get_origin(hint) is tuple:
        return _list(hint, value, where)
    kinds, expected = _KINDS[hint]
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where}: got {value!r}, expected {expected}")
    return float(value) if hint is float else value


def _list(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    kind, *rest = typing.get_args(hint)
    what = "names" if kind is str else "numbers"
    count = None if Ellipsis in rest else 1 + len(rest)
    wanted = f"{'' if kind is str else 'one or more '}{what}" if count is None else f"{count} {what}"
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not (value or kind is str) or (count is not None and len(value) != count):
        raise InputError(f"{where}: got {value!r}, expected a list of {wanted}")
    return tuple(_value(kind, one, where) for one in value)
