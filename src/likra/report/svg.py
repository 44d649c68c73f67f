"""A figure's SVG within a page."""

import re
from pathlib import Path


def inline_svg(path: Path) -> str:
    """An SVG without XML header, metadata and fixed size, and shorter; its ids are unique."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
    svg = re.sub(r'\bd="[^"]*"', _shortened, svg)
    ids = {name: f"{path.stem}-{i}" for i, name in enumerate(re.findall(r'\bid="([^"]+)"', svg))}
    svg = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{ids[match[1]]}"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', lambda match: f'href="#{ids[match[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{ids[match[1]]})", svg)


def _shortened(outline: re.Match[str]) -> str:
    """An outline to a tenth of a point, which is fine enough for a screen."""
    rounded = re.sub(r"(\d\.\d)\d+", r"\1", outline[0])
    return re.sub(r"\s*([A-Za-z])\s+", r"\1", rounded)
