"""Pictures drawn once with matplotlib, and saved as PNG and as SVG that adopts the colours of its page."""

import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from cnn.support.libraries import LibraryError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1d1f"  # near black; an HTML page replaces it by its text colour
COLOURS = ("#2a86c8", "#d55e00", "#009e73", "#cc79a7", "#8a7500")  # distinct for any colour vision
MARKERS = "os^Dv"


def line_look(number: int) -> dict[str, Any]:
    """The colour and the marker of a line: the first 25 differ, and neighbours differ in both."""
    rounds, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + rounds) % len(MARKERS)]}


STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # included in matplotlib, wider than most fonts
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # dollar signs in a name are not formulas
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "xpcnn",  # the same drawing always gives the same file
}


@dataclass(frozen=True)
class Picture:
    """A figure with its name and a description for screen readers."""

    name: str  # the file name without the suffix
    title: str
    description: str
    figure: "Figure"

    def png(self) -> bytes:
        """The picture as PNG for slides and papers: on white, 150 dots per inch."""
        data = io.BytesIO()
        self.figure.savefig(data, format="png", dpi=150, facecolor="white")
        return data.getvalue()

    def svg(self) -> str:
        """The picture as SVG to embed in an HTML page: transparent, and its ids begin with its name."""
        data = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self.figure.savefig(data, format="svg", facecolor="none", metadata=nothing)
        root = ElementTree.fromstring(data.getvalue())
        for parent in root.iter():
            for rule in parent.findall("{*}style"):  # it would apply to the whole page
                parent.remove(rule)
        _as_html(root, self.name)
        box = root.attrib["viewBox"]
        root.attrib.clear()
        root.attrib |= {"viewBox": box, "role": "img", "aria-label": self.description}
        return ElementTree.tostring(root, encoding="unicode")


def require_matplotlib(purpose: str) -> None:
    """Import matplotlib, without the user's settings if they are invalid; may raise LibraryError."""
    try:
        require("matplotlib.figure", purpose)
    except LibraryError as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        try:
            with _default_settings(), chdir(os.sep):  # a matplotlibrc in the current folder has priority
                import_module("matplotlib.figure")
        except BaseException:
            raise error from None


@contextmanager
def _default_settings() -> Iterator[None]:
    """Inside the block matplotlib uses only its default settings."""
    settings = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextmanager
def style() -> Iterator[None]:
    """Inside this block, drawings are the same on every machine; matplotlibrc is ignored."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a browser has other fonts
        yield


def _as_html(root: ElementTree.Element, prefix: str) -> None:
    """Remove namespaces, which HTML does not need, and make ids short and unique in the page."""
    ids: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return match[1] + ids.setdefault(match[2], f"{prefix}-{len(ids)}")

    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        element.tail = None  # the line breaks between elements
        attributes = {name.rpartition("}")[2]: value for name, value in element.items()}
        for name, value in attributes.items():
            attributes[name] = re.sub(r"(^#|url\(#)([^)]+)", renamed, value.replace(INK, "currentColor"))
        element.attrib.clear()
        element.attrib |= attributes
    for element in root.iter():
        if (old := element.attrib.pop("id", None)) in ids:
            element.set("id", ids[old])
