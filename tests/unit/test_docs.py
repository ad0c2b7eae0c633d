"""The documentation: its links lead somewhere, and it names the commands and options that there are."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from figures import Figures  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "deploy" / "README.md",
    ROOT / "docker" / "README.md",
]


def help_of(*words):
    command = [sys.executable, "-m", "loader", *words, "--help"]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout


def anchors_of(page):
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall("^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows_of(page, heading):
    """The first cells of the tables below a heading."""
    text = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Each link to a file of the project names one that is there, and a heading that it has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_of_a_file_are_exported(page):
    """Who sources a file of variables has a shell that exports them, or the loader does not see them."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if sourced := re.search(r"(?<![\w.])\. \S*(?<!v)env\b", line):
            assert "set -a" in line[: sourced.start()], line


def test_each_page_is_linked():
    """A reader of README finds every page of docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text] == []


def test_the_table_of_commands():
    """README has a line for each command, in which no other is named."""
    there = set(re.findall(r"^  ([a-z]+) ", help_of().partition("Commands:")[2], re.MULTILINE))
    assert {re.match(r"\| `([a-z]+)", row)[1] for row in rows_of(ROOT / "README.md", "Commands")} == there


def test_the_options_of_a_sync():
    """docs/configuration.md has each option of sync, and so of backfill, but the one that shows the help."""
    rows = rows_of(ROOT / "docs" / "configuration.md", "Options of sync and backfill")
    shown = {name for row in rows for name in re.findall("--[a-z-]+|(?<=`)-o", row)}
    there = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", help_of("sync"), re.MULTILINE))
    assert {"--output" if name == "-o" else name for name in shown} == there - {"--help", "--all"}


def test_words_are_of_today():
    """What users and developers read has no archaic words: a newcomer should not stop at any."""
    old = re.compile(
        r"\b(lest|amid|in vain|anew|mends?|for want of|so manieth|th[rn]ow[sn]? keys away"
        r"|(none|empty|false) where|none that (a loader|this program))\b",
        re.IGNORECASE,
    )
    files = [
        *PAGES,
        *(ROOT / "loader").rglob("*.py"),
        *(ROOT / "loader").rglob("*.pyx"),
        *(ROOT / "loader/web").rglob("*.*"),
    ]
    texts = {
        file: file.read_text(encoding="utf-8")
        for file in files
        if file.suffix in {".md", ".py", ".pyx", ".js", ".html"}
    }
    assert [(file.name, found.group()) for file, text in texts.items() for found in old.finditer(text)] == []


@pytest.fixture(scope="module")
def site():
    """The site, built: every page in its menu, and no link that leads nowhere."""
    subprocess.run([ROOT / "scripts/docs.sh"], check=True, capture_output=True)
    return ROOT / "build/site"


def test_the_site(site):
    """It has all pages, and fetches nothing from elsewhere: it can be read without a network."""
    pages = {path.name for path in (ROOT / "docs").rglob("*.md")}
    built = {path.with_suffix(".md").name: path.read_text(encoding="utf-8") for path in (site / "docs").rglob("*.html")}
    assert pages == built.keys()
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*stylesheet[^>]*href=["']?http"""
    )
    assert [name for name, text in built.items() if fetched.search(text)] == []


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_the_site_is_searched_in_a_folder(site):
    """Without a web server, which a browser wants for workers, a word finds its pages."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{(site / 'docs/tutorial.html').as_uri()}?q=checkpoint")
        found = page.locator(".md-search-result__item")
        found.first.wait_for(state="attached")
        assert "checkpoint" in found.first.text_content().lower()
        browser.close()


def test_figures_of_performance():
    """What docs/performance.md says a row costs is what the benchmark's last full run measured."""
    figures = Figures(json.loads((ROOT / "benchmarks/results.json").read_text(encoding="utf-8")))
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.endswith(" µs |")]
    shown = {
        "loader, HMSET": ("cluster", "net cpu"),
        "loader, [ready-made](configuration.md#ready-made-hashes)": ("ready-made", "net cpu"),
        "MySQL": ("cluster", "mysql"),
        "Redis, HMSET: master and replica together": ("cluster", "redis"),
        "Redis, ready-made: master and replica together": ("ready-made", "redis"),
    }
    assert [label for label, *_ in rows] == list(shown)
    for label, *cells in rows:
        variant, what = shown[label]
        for name, cell in zip(("stu", "orders", "wide_30", "wide_100"), cells, strict=True):
            found = figures.of(f"{name}/{variant}", what)
            assert float(cell.removesuffix(" µs")) == pytest.approx(found[0], rel=0.05), (label, name)
    for name, case in (("12 columns", "orders"), ("30", "wide_30"), ("100", "wide_100")):
        ratio = figures.ratio((f"{case}/ready-made", "wall"), (f"{case}/limit", "wall"))
        assert f"{ratio[0]:.2f} with {name}" in text
    for text_of, case in (("`loader --help` takes {:.2f} s", "start/help"), ("five rows {:.2f} s", "start/stu")):
        assert text_of.format(figures.of(case, "wall")[0]) in text
    one, two = (figures.of(f"workers/{number}", "net rate")[0] for number in (1, 2))
    assert f"two are {two / one:.1f} times as fast as one" in text
    master = {name: figures.of(name, "redis")[0] / 2 for name in ("stu/cluster", "orders/cluster", "orders/ready-made")}
    rates = [f"{float(f'{1e6 / each:.1e}'):,.0f}" for each in master.values()]
    assert "about {} rows a second of 3 columns, {} of 12, and {} of 12 that are ready-made".format(*rates) in text
    cores = [master[name] / figures.of(name, "net cpu")[0] for name in ("stu/cluster", "orders/cluster")]
    assert "keeps {:.0f} cores of Redis masters busy with rows of 3 columns, and {:.0f} with".format(
        *cores
    ) in " ".join(text.split())
