"""Data Docs: Great Expectations' own pages, one a verdict, without any value of a row and without anything fetched."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import fsspec

from orchestration import catalog

if TYPE_CHECKING:
    from orchestration.gate import Verdict

INDEX = "index.html"
STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:70em} td,th{padding:.2em 1em .2em 0;text-align:left}"
    ".text-success::before{content:'holds'} .text-danger::before{content:'fails'} #ge-cta-footer,.sticky-top{display:none}"
)


def write_docs(root: str, verdicts: Mapping[str, Verdict] | Sequence[Verdict]) -> list[str]:
    """Write one Data Docs page a verdict below `<root>/docs/data_docs/` and an index; returns the pages' URLs."""
    folder = catalog.join(root, "docs", "data_docs")
    pages = []
    for verdict in verdicts.values() if isinstance(verdicts, Mapping) else verdicts:
        pages.append(catalog.join(folder, f"{verdict.key}.html"))
        catalog.write_bytes(pages[-1], verdict.page.encode())
    fs, base = fsspec.core.url_to_fs(folder)
    known = sorted(p.split("data_docs/", 1)[1] for p in fs.find(base) if p.endswith(".html"))
    links = "".join(
        f'<li><a href="{p}">{p.removesuffix(".html")}</a></li>' for p in known if p != "index.html"
    )
    index = f"<!doctype html><meta charset=utf-8><title>Data Docs</title><h1>Data Docs</h1><ul>{links}</ul>"
    catalog.write_bytes(catalog.join(folder, INDEX), index.encode())
    return pages


def render(verdict: Verdict, validated: Any) -> str:
    """Great Expectations' own Data Docs page below a table of the suite's sentences; a browser fetches nothing else."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    rendered = _page_view().render(ValidationResultsPageRenderer().render(validated))
    rendered = re.sub(r"<script\b.*?</script>|<footer>.*?</footer>|<nav\b.*?</nav>", "", rendered, flags=re.S)
    rendered = re.sub(r"<link\b[^>]*>|<img\b[^>]*https?://[^>]*>|url\('https?://[^)]*\)", "", rendered)
    rows = "".join(
        f"<tr><td>{'holds' if r.passed else '<b>fails</b>'}</td><td>{html.escape(r.line())}</td><td>{r.type}</td></tr>"
        for r in verdict.results
    )
    return re.sub(
        r"(<body[^>]*>)",
        lambda body: (
            f"{body[1]}<style>{STYLE}</style><h1>{verdict.key}</h1><p>{html.escape(verdict.line())}</p>"
            f"<table><tr><th></th><th>sentence</th><th>expectation</th></tr>{rows}</table>"
        ),
        rendered,
        count=1,
    )


@cache
def _page_view() -> Any:
    from great_expectations.render.view import DefaultJinjaPageView

    return DefaultJinjaPageView()  # it compiles its templates once
