"""How a model is trained: every number in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeser.runtime.errors import InputError
from edgeser.training.augment import EncoderAugmentation, LogMelAugmentation


@dataclass(frozen=True)
class Recipe:
    """Optimisation and regularisation.

    Attributes:
        epochs: Passes over the recordings; in each, every recording comes once, with one of its lines.
        batch_size: Utterances a step.
        learning_rate: AdamW's peak, reached after `warmup_share` of the steps, then along a cosine to 0.
        warmup_share: Share of all steps.
        weight_decay: AdamW's.
        label_smoothing: Mass moved from the label to all classes.
        part_weight: Weight of the loss of each of a model's parts beside the loss of the whole.
        average_decay: Decay of the exponential moving average of the weights; the average is what is kept.
        text_drop: Share of the samples that train without words, so that the model degrades to audio alone.
        audio_drop: Share of the samples that train without audio, so that words are learned too.
        word_drop: Share of the words left out of a line.
        mark_drop: Share of the lines that lose their `!` and `?`, as if a recogniser had written them.
        seed: Of weights, order and augmentation.
        log_mel: Augmentation of log-mel energies.
        encoder: Augmentation of a speech encoder's rows.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    part_weight: float = 1.0
    average_decay: float = 0.98
    text_drop: float = 0.15
    audio_drop: float = 0.1
    word_drop: float = 0.1
    mark_drop: float = 0.5
    seed: int = 1
    log_mel: LogMelAugmentation = field(default_factory=LogMelAugmentation)
    encoder: EncoderAugmentation = field(default_factory=EncoderAugmentation)

    def augmentation(self, frontend: str) -> LogMelAugmentation | EncoderAugmentation:
        """Return the augmentation for a kind of audio frontend."""
        return self.log_mel if frontend == "log-mel" else self.encoder

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(f"recipe: got {self.epochs} epochs of batches of {self.batch_size}, expected at least 1")
        for name in ("text_drop", "audio_drop", "word_drop", "mark_drop", "label_smoothing", "warmup_share"):
            share = getattr(self, name)
            if not 0.0 <= share < 1.0:
                raise InputError(f"recipe: got {name} {share}, expected 0 to below 1")
