"""The papers of the methods of a suite: links for a page, and entries that LaTeX can cite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ntbench.registry import registry
from ntbench.report.declared import UnreadableError, declared_papers
from ntbench.report.templating import Tex, latex
from ntbench.suite import Suite

_LINK = re.compile(r"https?://[\w.~:/?#@!$&'()*+,;=%-]+", re.ASCII)
_ARXIV = re.compile(r"https?://arxiv\.org/abs/(\d{4}\.\d{4,5})(?:v\d+)?")
_CITED = re.compile(
    r"Paper: (?P<first>[A-Z][\w-]+)(?P<more> et al\.| (?:and|&) [A-Z][\w-]+)?,? "
    r'(?:[A-Z][\w& ]+ )?(?P<year>\d{4}), "(?P<title>[^"]+)"'
)


@dataclass(frozen=True)
class Paper:
    """What a method's card says of its paper; author, year and title are empty where it does not say them."""

    url: str
    author: str = ""
    year: str = ""
    title: str = ""

    @property
    def arxiv(self) -> str:
        """Return the number on arXiv, empty for papers elsewhere."""
        found = _ARXIV.fullmatch(self.url)
        return found[1] if found else ""

    @property
    def key(self) -> str:
        """Return what LaTeX cites the paper by, made of its address alone."""
        address = re.sub(r"[^A-Za-z0-9.]+", "-", self.url.partition("://")[2]).strip("-.")
        return f"arXiv:{self.arxiv}" if self.arxiv else address

    @property
    def said(self) -> str:
        """Return the paper as a link shows it."""
        return self.title or (f"arXiv:{self.arxiv}" if self.arxiv else self.url.partition("://")[2])


def papers(suite: Suite) -> dict[tuple[str, str], Paper]:
    """Return the papers of a suite's methods by kind and name, those that have one; no method is imported."""
    names = [("defense", entry.name) for entry in suite.defenses] + [("attack", entry.name) for entry in suite.attacks]
    known: Mapping[tuple[str, str], tuple[str, str]] = {}
    with suppress(UnreadableError):
        known = declared_papers()
    found = {method: _paper(*(known.get(method) or _held(*method))) for method in dict.fromkeys(names)}
    return {method: paper for method, paper in found.items() if paper}


def cited_rows(suite: Suite, found: Mapping[tuple[str, str], Paper]) -> dict[str, str]:
    """Return the key of each row of a suite whose defense has a paper."""
    rows = {row: found.get(("defense", entry.name)) for entry in suite.defenses for row in entry.rows}
    return {row: paper.key for row, paper in rows.items() if paper}


def bibliography(found: Sequence[Paper]) -> str:
    """Return a BibTeX file with one entry a paper."""
    entries = {paper.key: (paper, Tex(paper.url)) for paper in found}
    return latex().get_template("papers.bib.j2").render(entries=entries)


def _held(kind: str, name: str) -> tuple[str, str]:
    method = registry.held(kind, name)
    return str(getattr(method, "paper", "")), ""


def _paper(url: str, docstring: str) -> Paper | None:
    if not _LINK.fullmatch(url):
        return None
    cited = _CITED.search(" ".join(docstring.split()))
    if cited is None:
        return Paper(url)
    more = {" et al.": " and others"}.get(cited["more"], (cited["more"] or "").replace("&", "and"))
    return Paper(url, cited["first"] + more, cited["year"], cited["title"])
