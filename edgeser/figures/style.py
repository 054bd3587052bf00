"""How every figure looks: colours, sizes, and the way to a PNG. No window system, no user's settings."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeser.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
# Okabe and Ito's palette, told apart with any colour vision; light and dark differ in grey print too.
BLUE = "#0072B2"
ORANGE = "#E69F00"
VERMILLION = "#D55E00"
GREY = "#767676"
COUNTS_MAP = "Blues"
ATTENTION_MAP = "Oranges"

_STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a transcript's dollar signs are no formula
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": DPI,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw with matplotlib's defaults and our changes, whatever the user's matplotlibrc says.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.style
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "train", "drawing figures") from error
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure of a size in inches, drawn by Agg: pyplot, and so a display, is never touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        # Scripts that the font lacks are drawn as boxes; the page has the words themselves.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def shorten(text: str, length: int) -> str:
    """Return a text on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "\u2026"


def shorten_middle(text: str, length: int) -> str:
    """Return a text on one line, cut to `length` characters in its first half: a layer's name ends with what it is."""
    line = " ".join(text.split())
    head = length // 3
    return line if len(line) <= length else f"{line[:head]}\u2026{line[head + 1 - length :]}"
