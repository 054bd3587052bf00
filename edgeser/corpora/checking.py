"""What of a corpus cannot be used, found out before hours of work: one list, one rule."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from edgeser.corpora.utterance import Utterance
from edgeser.runtime.decoding import estimate_length_s
from edgeser.runtime.errors import InputError

MOST = 0.1
"""Largest share of a corpus's utterances that may be left out; of more, the corpus is not the one that was meant."""
FRAME_S = 0.025
"""The shortest that every frontend hears."""
_ROUNDING_S = 0.1  # an end this far behind the file's is a rounded one
_NAMED = 20  # utterances that the list shows
_SHOWN = 3  # that an error shows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What was found out about utterances.

    Attributes:
        unusable: By id, why one cannot be used.
        lengths: By recording, seconds; of those that can be used.
    """

    unusable: Mapping[str, str]
    lengths: Mapping[tuple[str, float, float | None], float]


def check_utterances(utterances: Sequence[Utterance], shortest_s: float = FRAME_S) -> Check:
    """Find the utterances that cannot be heard, from the extents and what the files say of their lengths.

    Args:
        utterances: Utterances.
        shortest_s: The least that is needed of each, seconds.
    """
    unusable: dict[str, str] = {}
    lengths: dict[tuple[str, float, float | None], float] = {}
    files: dict[Path, float | str] = {}
    for utterance in tqdm(utterances, desc="checking the corpus", unit="clip", leave=False, disable=None, delay=2):
        if utterance.audio not in files:
            files[utterance.audio] = _duration_s(utterance.audio)
        found = _length_s(utterance, files[utterance.audio], shortest_s)
        if isinstance(found, str):
            unusable[utterance.id] = found
        else:
            lengths[utterance.recording] = found
    return Check(unusable, lengths)


def leave_out(unusable: Mapping[str, str], count: int, strict: bool = False) -> None:
    """Say which utterances are left out; refuse where they are more than a tenth, or any where it is to be strict.

    Args:
        unusable: By id, why one cannot be used.
        count: How many there are altogether.
        strict: Refuse any.

    Raises:
        InputError: There are too many.
    """
    if not unusable:
        return
    what = f"{len(unusable):,} of {count:,} utterances cannot be used"
    if strict or len(unusable) > MOST * count:
        limit = "--strict takes none" if strict else f"at most {MOST:.0%} are left out"
        shown = "; ".join(f"{name}: {why}" for name, why in list(unusable.items())[:_SHOWN])
        more = "; ..." if len(unusable) > _SHOWN else ""
        raise InputError(f"corpus: {what}, {limit} ({shown}{more}): mend them, or take them out of the corpus")
    lines = [f"  {name}: {why}" for name, why in list(unusable.items())[:_NAMED]]
    lines += [f"  and {len(unusable) - _NAMED:,} more"] if len(unusable) > _NAMED else []
    _log.warning("corpus: %s and are left out\n%s", what, "\n".join(lines))


def usable_utterances(
    utterances: Sequence[Utterance], strict: bool = False, shortest_s: float = FRAME_S
) -> list[Utterance]:
    """Return the utterances that can be used; see `check_utterances` and `leave_out`."""
    unusable = check_utterances(utterances, shortest_s).unusable
    leave_out(unusable, len(utterances), strict)
    return [utterance for utterance in utterances if utterance.id not in unusable]


def extent_problem(start_s: float, end_s: float | None) -> str:
    """Return what is wrong with an utterance's times; empty where nothing is."""
    if not math.isfinite(start_s) or start_s < 0.0:
        return f"start_s is {start_s}, expected 0 or more"
    if end_s is not None and not start_s < end_s < math.inf:
        return f"end_s is {end_s}, expected more than start_s, {start_s}"
    return ""


def _length_s(utterance: Utterance, whole_s: float | str, shortest_s: float) -> float | str:
    """Return how long an utterance is, or why it cannot be used."""
    start_s, end_s = utterance.start_s, utterance.end_s
    if problem := extent_problem(start_s, end_s):
        return problem
    if isinstance(whole_s, str):
        return f"{utterance.audio}: {whole_s}"
    if max(start_s, (end_s or 0.0) - _ROUNDING_S) >= whole_s:
        what, place = ("starts", start_s) if start_s >= whole_s else ("ends", end_s)
        return f"{what} at {place} s, {utterance.audio} lasts {whole_s:.3f} s"
    length_s = (whole_s if end_s is None else min(end_s, whole_s)) - start_s
    if length_s < shortest_s:
        return f"lasts {length_s * 1e3:.1f} ms, expected at least {shortest_s * 1e3:.1f} ms ({utterance.audio})"
    return length_s


def _duration_s(audio: Path) -> float | str:
    """Return how long a file lasts, or why that cannot be told."""
    try:
        return estimate_length_s(audio)
    except InputError as error:
        return str(error).removeprefix(f"{audio}: ")
