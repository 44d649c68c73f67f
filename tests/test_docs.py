"""The documentation site: it builds without a warning, and needs nothing but itself."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import likra

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a broken link, or a page that is not in the menu, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stdout + result.stderr
    return folder


class Page(HTMLParser):
    """The ids of a page, its links, and what a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.ids.add(own.get("id", ""))
        if tag == "a" and "href" in own:
            self.links.append(own["href"])
        if "src" in own or (tag == "link" and own.get("rel") != "canonical"):
            self.loads.append(own.get("src") or own["href"])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_of_a_built_page_leads_somewhere(pages):
    """Those of the theme and of docstrings too, which MkDocs does not look at."""
    seen = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of a server
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: {link}"
            seen += 1
    assert seen > len(pages)


def test_links_of_the_readme_lead_to_files():
    """It is no page of the site; its links lead into the pages' sources."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "//" not in link]
    assert len(links) > 5
    assert not [link for link in links if not (ROOT / link).exists()]


def test_pages_load_nothing_from_elsewhere(site, pages):
    assert not [load for page in pages.values() for load in page.loads if "//" in load]
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(.?(https?:)?//|@import", style.read_text("utf-8")), style


def test_score_tables_stay_in_the_repository(site):
    """The pages that name them are there, the files of some megabytes are not."""
    assert (site / "data/index.html").is_file()
    assert not [p for p in (site / "data").rglob("*") if p.is_file() and p.suffix != ".html"]


def test_every_public_name_has_its_place_in_the_reference(site, pages):
    reference = {name for path in (site / "api").glob("*.html") for name in pages[path].ids}
    assert {f"likra.{name}" for name in likra.__all__} <= reference
