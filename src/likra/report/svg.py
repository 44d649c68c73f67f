"""A figure's SVG within a page."""

import re
from pathlib import Path


def inline_svg(path: Path) -> str:
    """An SVG without XML header, metadata and fixed size; its ids are its own in the page."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
    svg = re.sub(r'\bd="[^"]*"', _with_tenths, svg)
    name = path.stem
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)


def _with_tenths(path: re.Match[str]) -> str:
    """An outline to a tenth of a point: fine enough for a screen, and half as long."""
    return re.sub(r"(\d\.\d)\d+", r"\1", path[0])
