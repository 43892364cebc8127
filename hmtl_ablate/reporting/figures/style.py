"""What the figures share: colours, sizes, wrapped names, forest plots, and files with the same bytes each time.

Figures are drawn with matplotlib's Agg canvas, so that no display is needed. They are as wide as a phone's page, so
that their letters can be read there.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmtl_ablate.reporting.document import one_line
from hmtl_ablate.reporting.statistics import Estimate

# Okabe and Ito's palette, which readers with any colour vision can distinguish.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX"
GREY = "0.55"
"""Of what a figure shows in addition, such as effects that a mean leaves out."""
WIDTH = 5.2
"""Inches: in a page of 390 px, letters of 10 points are about 10 px high."""
MOST_ARMS = len(COLOURS)
"""Lines in one figure; of more arms the baseline and the best are drawn."""
_RC = {
    "text.parse_math": False,  # a $ in a name is a $
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "hmtl-ablate",
}


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows."""

    figure: Figure
    alt: str
    """In words and numbers, for readers who do not see it."""


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for drawing and for writing them."""
    with mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script without a font here
        yield


def new_figure(height: float, rows: int = 1, ratios: Sequence[float] | None = None) -> tuple[Figure, list[Any]]:
    """An empty figure and its axes from top to bottom; height: of the whole figure, in inches; ratios: of the rows'
    heights, equal by default."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, squeeze=False, height_ratios=ratios)[:, 0])


def wrapped(name: str, width: int = 20) -> str:
    """A name in lines of at most so many characters; three lines at most."""
    lines = textwrap.wrap(one_line(name), width) or [""]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 1] + "…"])


def forest(
    axes: Any, items: Sequence[tuple[str, Estimate]], percent: bool, colours: Sequence[str] = (COLOURS[0],)
) -> None:
    """One line per estimate with a mean: its point, its interval where there is one, and 0 as a dashed line."""
    scale = 100 if percent else 1
    for place, (_, found) in enumerate(items):
        colour = colours[place % len(colours)]
        assert found.mean is not None
        if found.low is not None and found.high is not None:
            axes.plot([scale * found.low, scale * found.high], [place, place], color=colour, linewidth=2)
        axes.plot([scale * found.mean], [place], marker="o", color=colour, markersize=6)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(items)), [wrapped(name, 22) for name, _ in items])
    axes.set_ylim(len(items) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def forest_height(count: int) -> float:
    """Inches that a forest plot of so many lines takes."""
    return 1.2 + 0.46 * count


def svg(figure: Figure) -> str:
    """The figure as SVG, the same text for the same figure."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG, at 150 pixels per inch."""
    data = io.BytesIO()
    with style():
        figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()
