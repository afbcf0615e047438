"""Shapes of an SVG file as text: always the same for the same numbers, so that a figure can be compared with its code.

Lengths are in pixels from the top left corner.
"""

from collections.abc import Iterable
from html import escape

INK, GREY, FAINT = "#1f2937", "#6b7280", "#e5e7eb"
TEXT, CONTEXT, TARGET = "#d97706", "#2563eb", "#be185d"


def rectangle(x: float, y: float, width: float, height: float, fill: str, border: str = "none") -> str:
    """A filled rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{border}"'
        f' stroke-width="{0 if border == "none" else 1}"/>'
    )


def label(x: float, y: float, words: str, *, anchor: str = "middle", size: int = 13, fill: str = INK) -> str:
    """Words whose baseline is at `y`; `anchor` is start, middle or end."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{escape(words)}</text>'


def line(points: Iterable[tuple[float, float]], colour: str = INK, *, arrow: bool = False, dashed: bool = False) -> str:
    """A line through points, with an arrow's head at its end."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    ends = (' marker-end="url(#head)"' if arrow else "") + (' stroke-dasharray="4 3"' if dashed else "")
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{ends}/>'


def dot(x: float, y: float, colour: str = INK) -> str:
    """A small filled circle around (x, y)."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="3" fill="{colour}"/>'


def document(width: float, height: float, title: str, shapes: Iterable[str]) -> str:
    """The file; its title is what a screen reader reads."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" role="img" font-family="system-ui, sans-serif">'
    )
    arrow = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>'
    )
    paper = rectangle(0, 0, width, height, "#ffffff")
    return "\n".join([head, f"<title>{escape(title)}</title>", arrow, paper, *shapes, "</svg>", ""])
