"""The look of all figures: small multiples, few lines besides the curves, the Okabe-Ito colours."""

from typing import Any

# Okabe and Ito 2008, "Color universal design", without black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, GRID = "#1a1a1a", "#707070", "#e0e0e0"
# In an SVG every colour is a CSS variable, so that the page decides between light and dark.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--line-{i}" for i, c in enumerate(COLOURS)}
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
DASHED, DOTTED = DASHES[1:]

PANEL_SIZE = (3.4, 2.5)  # inches
NOTE_HEIGHT = 9  # points of a row of small text
LONGEST_NAME = 40  # characters

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with two dollars is no formula
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "grid.linewidth": 0.6,
    "grid.color": GRID,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.4,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def colour_of(number: int | None) -> str:
    """The colour of a line, or that of marks without a number."""
    return MUTED if number is None else COLOURS[number % len(COLOURS)]


def dashes_of(style: int) -> Any:
    """How a line of a style is drawn."""
    return DASHES[style % len(DASHES)]
