"""The page of fabricated tables, read as its readers do."""

import json
import re
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import boards
import pytest
from boards import HOSTILE, NAMES, tables

from ntbench.report.files import write_all
from ntbench.report.glossary import GLOSSARIES
from ntbench.report.page import OURS, report_files

CHROMIUM = Path("/usr/bin/chromium")


class Page(HTMLParser):
    """Collects what a page would fetch, and the text that it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.papers: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.papers += [value or "" for name, value in attrs if name == "href"]
            return
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_all(out, report_files(tables(), boards.suite(NAMES), {"Data": {"sketch/test": "feedc0de"}}), OURS)
    return out


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


def test_every_file_is_written(report: Path) -> None:
    names = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    kinds = ("ranking", "learning_curves", "compute", "factors", "attacks")
    stems = [f"{kind}-{task.name}" for kind in kinds for task in boards.tasks()] + ["slc-map", "leak-map"]
    figures = {f"figures/{stem}{end}.{k}" for stem in stems for end in ("", "-column") for k in ("png", "pdf", "svg")}
    figures |= {f"figures/{stem}.csv" for stem in stems}
    found = {
        f"{name}.csv" for name in ("leaderboard", "results", "failures", "coverage", "curves", "budgets", "attacks")
    }
    found |= {"factors.csv", "tasks.csv", "profiles.csv", "map.csv", "trajectories.parquet", "leaderboard.md"}
    found |= {f"{name}{form}.tex" for name in ("leaderboard", "beside", "factors", "tasks") for form in ("", "-column")}
    assert names == figures | found | {"index.html", "papers.bib"}


def test_a_sentence_and_a_picture_come_first(page: Page) -> None:
    body = page.tags[page.tags.index("main") :]
    assert body[:7] == ["main", "section", "p", "figure", "picture", "source", "img"]
    assert "photo to sketch: " in page.text.partition("What every release leaks")[0]


def test_no_table_that_is_open_has_more_than_seven_columns(report: Path) -> None:
    html = re.sub(r"<details>.*?</details>", "", (report / "index.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"<thead>.*?</thead>", html, re.DOTALL)
    assert len(heads) == 3 * 5 + 1
    assert max(head.count("<th ") for head in heads) == 7


def test_names_from_submissions_are_text_and_not_markup(report: Path, page: Page) -> None:
    html = (report / "index.html").read_text(encoding="utf-8")
    assert "script" not in page.tags
    assert "<i>is</i>" not in html
    assert HOSTILE in page.text
    assert "loss <i>is</i> nan_" in page.text
    markdown = (report / "leaderboard.md").read_text(encoding="utf-8")
    assert r"| &lt;script&gt;alert(1)&lt;/script&gt;&amp;\_$\\frac{$\[red\] |" in markdown


def test_the_page_fetches_nothing(page: Page) -> None:
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|https?://", "".join(page.shown))
    assert {"link", "iframe", "object", "script", "base"}.isdisjoint(page.tags)


def test_papers_are_links_that_nothing_follows(page: Page) -> None:
    assert page.papers == ["https://arxiv.org/abs/2410.08015", "https://arxiv.org/abs/2502.13593"]
    assert "Non-transferable Pruning" in page.text


def test_the_page_says_what_faced_what_and_what_failed(page: Page) -> None:
    assert "60 of 120" in page.text
    assert f"{boards.ATTACKS[-1]} (mask kept) (it moves zeros)" in page.text
    assert f"{boards.ATTACKS[1]} (2 of 20 cells)" in page.text
    assert "1 of " in page.text and "cells failed" in page.text
    assert "more cells are inapplicable" in page.text
    assert "feedc0de" in page.text
    assert "Gates: " in page.text


def test_under_five_seeds_the_page_says_range() -> None:
    files = report_files(tables(("a",), 1, 3), boards.suite(("a",), 1), {})
    assert "range of 3 seeds" in Page(files["index.html"].decode()).text
    assert "95%" not in Page(files["leaderboard.md"].decode()).text.partition("How to read")[0]
    assert not any(name.startswith("map") or "-map" in name for name in files)


def test_the_same_tables_make_the_same_files() -> None:
    one, other = (report_files(tables(("a",), 1), boards.suite(("a",), 1), {}) for _ in range(2))
    assert one == other


def test_every_column_of_every_file_is_explained(page: Page) -> None:
    # No rows of this board differ in the drop that they permit alone.
    for columns in (held for name, held in GLOSSARIES.items() if name not in ("permitted.csv", "ablations.csv")):
        for name, meaning in columns.items():
            assert name in page.text
            assert " ".join(meaning.split()) in page.text


PROBE = """<script>addEventListener('load', () => {
  const wide = document.documentElement.clientWidth;
  const beyond = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > wide + .5);
  const seen = [...document.querySelectorAll('.board td.leak, .board td.verdict')].map(e => e.getBoundingClientRect());
  const lost = seen.filter(r => r.width == 0 || r.right > wide || r.left < 0);
  const blank = [...document.images].filter(i => i.naturalWidth == 0);
  parent.postMessage([wide, beyond.map(e => e.outerHTML.slice(0, 80)), lost.length, blank.length, seen.length], '*');
});</script></body>"""
FRAME = """<!doctype html><title>?</title><script>
addEventListener('message', e => { document.title = 'SAID' + JSON.stringify(e.data) + 'END'; });
</script><iframe src="page.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>"""


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_scrolls_sideways(report: Path, tmp_path: Path, width: int) -> None:
    html = (report / "index.html").read_text(encoding="utf-8").replace("<details>", "<details open>")
    (tmp_path / "page.html").write_text(html.replace("</body>", PROBE), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=10000"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--dump-dom"]
    command = [str(CHROMIUM), *flags, (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search(r"SAID(.*?)END</title>", done.stdout, re.DOTALL)
    assert said, done.stdout[:500]
    shown, beyond, lost, blank, seen = json.loads(unescape(said[1]))
    assert width - 20 <= shown <= width
    assert (beyond, lost, blank) == ([], 0, 0)
    assert seen
