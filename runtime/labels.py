"""Emotion names: the label sets models are trained on, and how each corpus spells them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeser.runtime.errors import InputError

FOUR_EMOTIONS = ("angry", "happy", "neutral", "sad")
"""The set of the papers' IEMOCAP experiments; excited counts as happy."""

SEVEN_EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""MELD's set."""

NO_SPEECH = "no speech"
"""The label of a recording in which nobody speaks; no emotion may have this name."""

UNSURE = "unsure"
"""The label of an answer that is left out because others can be trusted more; no emotion may have this name."""

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "angry": ("ang", "anger"),
    "boredom": ("bored",),
    "calm": (),
    "disgust": ("dis", "disgusted"),
    "fear": ("fea", "fearful", "anxiety"),
    "frustrated": ("fru", "frustration"),
    "happy": ("hap", "happiness", "joy", "exc", "excited", "excitement"),
    "neutral": ("neu",),
    "sad": ("sadness",),
    "surprise": ("sur", "surprised"),
}

_EMOTION_OF = {spelling: emotion for emotion, others in _SPELLINGS.items() for spelling in (emotion, *others)}

RAVDESS_CODES: Mapping[str, str] = MappingProxyType(
    {
        "01": "neutral",
        "02": "calm",
        "03": "happy",
        "04": "sad",
        "05": "angry",
        "06": "fear",
        "07": "disgust",
        "08": "surprise",
    }
)
"""Third field of a RAVDESS file name, `03-01-05-…` -> angry."""

EMODB_CODES: Mapping[str, str] = MappingProxyType(
    {
        "W": "angry",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happy",
        "T": "sad",
        "N": "neutral",
    }
)
"""Sixth character of an EmoDB file name (initials of the German words), `03a01Wa` -> angry."""


def emotion_name(spelling: str) -> str:
    """Return EdgeSER's name for an emotion as IEMOCAP, MELD, RAVDESS or EmoDB spell it.

    Args:
        spelling: A label such as `exc`, `joy`, `Anger` or `fearful`; case and outer blanks do not matter.

    Returns:
        The canonical name, for example `happy`.

    Raises:
        InputError: The label is none that is known.
    """
    emotion = _EMOTION_OF.get(spelling.strip().lower())
    if emotion is None:
        raise InputError(f"emotion: got {spelling!r}, expected one of {', '.join(sorted(_EMOTION_OF))}")
    return emotion
