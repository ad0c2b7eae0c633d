"""The status page: all that a view knows is told, nothing that it says is taken for HTML, and none by colour alone."""

import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from loader.jobs.status import JobState
from loader.web.failures import Failures
from loader.web.listing import Listing
from loader.web.render import STATES, Renderer, ranges, spark
from loader.web.troubles import told_once
from loader.web.views import Cell, ClusterView, Grid, NodeView, Unfollowed, Viewer
from support import page_samples as looks
from support.page_samples import NOW, entry, job

INLINE = {"a", "b", "bdi", "code", "span", "time"}
VOID = {"meta", "link", "input", "br", "hr", "img"}
NASTY = "<script>alert(1)</script>'\"&{{ 7 * 7 }}\x1b[31m\x00\u202egnp\udcff"
TOLD = "<script>alert(1)</script>'\"&{{ 7 * 7 }}\\x1b[31m\\x00\\u202egnp\\udcff"  # what people see of it
CLERK = Viewer(actions=True, signed_in=True)
GUEST = Viewer(actions=True)
SOMEONE = Viewer()


class Read(HTMLParser):
    """A page as a browser reads it: its text, its elements, and a complaint where it is not well formed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.words, self.ids = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        self.words.append("" if tag in INLINE else " ")
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.words.append("" if tag in INLINE else " ")

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def pages():
    return Renderer()


@pytest.fixture(scope="module")
def written():
    return looks.written()


def overview(pages, *jobs, viewer=SOMEONE, **facts):
    return Read(pages.overview(looks.overview(jobs=jobs, **facts), viewer))


def test_pages_are_well_formed(written):
    """Each element is closed in its turn, and an id is there once."""
    for name, html in written.items():
        read = Read(html)
        assert html.startswith("<!doctype html>"), name
        assert len(read.ids) == len(set(read.ids)), name
        assert read.all("html") == [{"lang": "en"}], name
        assert [tag for tag, _ in read.elements if tag in {"main", "h1"}] == ["main", "h1"], name


def test_no_page_holds_a_style_a_script_or_another_host(written):
    """What a strict Content-Security-Policy forbids is not there."""
    for name, html in written.items():
        read = Read(html)
        assert read.all("style") == [], name
        assert all(set(attrs) == {"src", "defer"} for attrs in read.all("script")), name
        for tag, attrs in read.elements:
            assert not [each for each in attrs if each.startswith("on") or each == "style"], (name, tag, attrs)
            links = [attrs[each] for each in ("href", "src", "action", "xlink:href") if each in attrs]
            assert all(re.match(r"/(?!/)|#", link) for link in links), (name, tag, attrs)
            assert not any(re.search(r"(https?:|data:|javascript:)", str(value)) for value in attrs.values()), (
                name,
                tag,
            )


def test_static_files_ask_no_other_host(pages, written):
    """They are found by the addresses that pages give; they name no host, and no other file is given."""
    names = {attrs["href"] for html in written.values() for attrs in Read(html).all("link")}
    names |= {attrs["src"] for html in written.values() for attrs in Read(html).all("script")}
    assert {re.sub(r"\?[0-9a-f]{8}$", "", name) for name in names} == {
        "/static/style.css",
        "/static/page.js",
        "/static/icon.svg",
    }
    for name, kind in (("style.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        content, media = pages.static(name)
        assert media.partition(";")[0] == kind
        foreign = content.replace(b"http://www.w3.org/2000/svg", b"")
        assert not re.search(rb"//[a-z]|url\(|@import|eval|innerHTML", foreign)
    assert pages.static("../pages.py") is None
    assert pages.static("overview.html") is None


def test_each_state_has_a_shape_and_a_word(pages):
    """No two states look alike where colours are not seen."""
    shapes = {}
    for state in STATES:
        html = pages.overview(looks.overview(jobs=(job("one", state),)), SOMEONE)
        badge = re.search(
            r'<span class="state (\w+)" title="[^"]+"><svg [^>]*><use href="#(s-\w+)"/></svg>(\w+)</span>', html
        )
        assert badge.groups() == (state, f"s-{state}", state)
        drawn = re.search(rf'<symbol id="s-{state}" [^>]*>(.*?)</symbol>', html)[1]
        shapes[re.sub(r' class="\w+"', "", drawn)] = state
    assert len(shapes) == len(STATES) == 9


def test_an_overview_tells_of_a_job_that_is_well(pages):
    """Its name, schedule, last run, next run, last success, rows, rates and rejects."""
    read = overview(pages, job("orders", rates=(0.0, 1500.0, 20.0)))
    for words in ("orders every 30s", "3 min ago ok, 1.2 s", "in 12 s", "3 min of 10 min", "182,340", "max 1,500"):
        assert words in read.text
    assert {"href": "/jobs/orders"} in read.all("a")
    assert "0 failing" in read.text


def test_an_overview_tells_of_a_run_under_way(pages):
    """How far it is, how fast, how long it will take, and why it waits."""
    running = looks.jobs()[1]
    read = overview(pages, running)
    for words in (
        "3,412,000 of about 12,400,000 rows",
        "27 %",
        "38,240 rows/s",
        "3 min 55 s to go",
        "342 chunks loaded",
        "9b2e77a1",
    ):
        assert words in read.text
    assert "waits" not in read.text
    waits = replace(running.progress, waits="MySQL has Threads_running=41", expected=None, eta=None, rate=0.0)
    read = overview(pages, replace(running, progress=waits))
    assert "waits MySQL has Threads_running=41" in read.text
    assert "3,412,000 rows 0 rows/s end not known" in read.text


def test_an_estimate_that_is_passed_fills_the_bar_and_no_more(pages):
    """MySQL's estimates may be too low by far, or zero."""
    running = looks.jobs()[1]
    read = overview(pages, replace(running, progress=replace(running.progress, rows=99, expected=50)))
    assert "99 of about 50 rows 100 %" in read.text
    read = overview(pages, replace(running, progress=replace(running.progress, rows=99, expected=0)))
    assert "99 rows" in read.text


def test_an_overview_tells_of_what_is_wrong(pages):
    """Errors stand below their jobs, and the summary counts them and leads to them."""
    failed = job("prices", "failed", last=entry("prices", 42, status="failed", error=looks.NO_ROOM), late=True)
    read = overview(pages, job("orders"), failed, job("stock", "rejects", rejects=1204), job("old", "late"))
    assert looks.NO_ROOM in read.text
    for words in ("4 jobs", "1 failing", "2 late", "0 running", "1,204 rejects"):
        assert words in read.text
    attention = read.text.partition("Needs attention")[2].partition("Jobs Find")[0]
    places = [attention.index(words) for words in ("prices failed", "old late", "stock rejects")]
    assert places == sorted(places)
    assert read.text.partition("Jobs Find")[0].count(looks.NO_ROOM) == 1
    assert {"/jobs/prices", "/jobs/old"} <= {each["href"] for each in read.all("a")}
    assert {"class": "rejects", "href": "/jobs/stock/rejects"} in read.all("a")
    assert looks.LINK_DOWN in read.text


def rows_of(html):
    """The jobs of the overview, from the top."""
    return re.findall(r'<tbody id="job-([^"]+)"', html)


def test_what_needs_attention_comes_first(pages):
    """Failed, late, rejects, paused, then the rest by name, in which numbers count."""
    html = pages.overview(
        looks.overview(
            jobs=(
                *(job("t_10"), job("t_9"), job("still", "paused"), job("stock", "ok", rejects=4), job("b", "running")),
                *(job("old", "late"), job("broken", "failed"), job("behind", "running", late=True)),
            )
        ),
        SOMEONE,
    )
    assert rows_of(html) == ["broken", "behind", "old", "stock", "still", "b", "t_9", "t_10"]


def test_parts_are_folded_under_their_job(pages):
    """One line counts them by state; what went wrong with the first is on it; each part is below, with a link."""
    view = looks.many_parts(300)
    html = pages.overview(view, SOMEONE)
    read = Read(html)
    assert rows_of(html) == ["prices", "students", "order_items", "orders"]
    text = read.text
    for words in ("4 jobs", "300 parts", "students 300 parts, every 30s", "3 failed 1 late 1 rejects 295 ok"):
        assert words in text, words
    assert text.partition("Jobs Find")[0].count(looks.NO_ROOM) == 1
    assert text.count("4 jobs ") == 2  # the jobs of the page, and those that failed for one reason
    assert "1,204 rows could not be written" in text
    assert "max 11,865" in text
    links = {each["href"] for each in read.all("a")}
    assert {f"/jobs/students%2Fs{at % 3}%2Fstudent_{at}" for at in range(300)} <= links
    assert "#job-students/s2/student_5" not in links
    groups = [attrs["data-states"] for tag, attrs in read.elements if tag == "section" and "data-states" in attrs]
    assert groups == ["failed attention", "late attention", "rejects attention", "ok"]
    (row,) = [attrs for attrs in read.all("tbody") if attrs.get("id") == "job-students"]
    assert row["data-states"].split() == ["failed", "late", "ok", "rejects", "attention"]


def test_parts_of_which_nothing_is_known_are_no_alarm(pages):
    """A daemon that has just started has asked nobody yet; state that cannot be read is told."""
    unknown = replace(looks.renamed(job("a", "unknown", last=None, success=None), "x/a"), part_of="x")
    html = pages.overview(looks.overview(jobs=(unknown,)), SOMEONE)
    assert "more below" not in html
    assert 'data-states="unknown"' in html
    assert '<p class="error unknown"' not in html
    unread = replace(unknown, status=replace(unknown.status, unread=("its history is odd",)))
    html = pages.overview(looks.overview(jobs=(unknown, unread)), SOMEONE)
    assert "its history is odd" in html
    assert 'data-states="unknown attention"' in html


def test_parts_with_hostile_names_are_text(pages):
    """Names and errors of parts are put together by hand, and escaped as any others."""
    part = replace(looks.renamed(job(last=entry(status="failed", error=NASTY)), f"x/{NASTY}"), part_of="x")
    html = pages.overview(looks.overview(jobs=(part, replace(part, part_of=NASTY))), SOMEONE)
    assert "<script>alert" not in html
    assert Read(html).text.count(f"{TOLD} 3 min ago {TOLD}") >= 1


def test_two_thousand_parts_are_drawn_in_a_moment(pages):
    """The page is asked for every two seconds by each who looks; it is small enough for that, too."""
    view = looks.many_parts(2000)
    pages.overview(view, SOMEONE)
    seconds = []
    for _ in range(5):
        began = time.thread_time()  # whatever else the machine does
        html = pages.overview(view, SOMEONE)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.1, seconds
    assert len(html) < 400_000


def test_what_is_said_of_a_job_may_not_be_so(pages):
    """A success in the future, a name that is another config's: the pages say it, and no age is negative."""
    well = job()
    future = replace(well.status, success=replace(well.status.last, ended=NOW + 200), ahead=200.0)
    foreign = replace(
        well.status, foreign="job 'orders' in this target belongs to another config", state=JobState.FAILED
    )
    for status, words in ((future, "is 3m in the future by redis's clock"), (foreign, "belongs to another config")):
        view = replace(well, status=status)
        for text in (overview(pages, view).text, Read(pages.job(looks.page(view), SOMEONE)).text):
            assert words in text
            assert "-" not in text.partition(" of 10 min")[0][-12:]


def test_a_run_elsewhere_is_told_with_who_has_it(pages):
    """The lock's holder stands where this daemon knows no progress."""
    read = overview(pages, looks.jobs()[-1])
    assert "run 77aa01bc on loader-2.example, pid 4711, since 07:58, part 2/4" in read.text


def test_an_overview_tells_of_the_cluster(pages):
    """Masters with slots, keys, memory, replicas and rows written; unowned slots; what is wrong; the total."""
    masters = (
        NodeView("a.example:1", ((0, 5460), (5470, 5470)), 1_234_567, 3 * 2**30, 2**32, 1, 98_765, ""),
        NodeView("b.example:2", ((5471, 16383),), None, None, None, None, 0, "timed out after 5 s"),
    )
    cluster = ClusterView("fail", cluster=True, nodes=masters, unowned=((5461, 5469),), problems=("9 slots are lost",))
    read = overview(pages, job(), cluster=cluster)
    for words in (
        "Cluster fail 2 masters",
        "9 slots are lost",
        "nobody owns 5461-5469",
        "a.example:1 5,462 1,234,567 3.0 GiB of 4.0 GiB 1 98,765",
        "b.example:2 timed out after 5 s 10,913 not known not known not known 0",
        "Total of those that answer 16,375 1,234,567 3.0 GiB 1 98,765",
        "nobody: slots 5461 to 5469",
    ):
        assert words in read.text
    bars = [each for each in read.all("rect") if each.get("height") == "28"]
    assert [each.get("fill") for each in bars] == [None, "url(#p-unowned)", None, "url(#p-unowned)"]
    assert sum(float(each["width"].rstrip("%")) for each in bars) == pytest.approx(100, abs=0.01)


def test_one_server_has_no_strip_of_slots(pages):
    """It owns what there is."""
    node = NodeView("a.example:1", ((0, 16383),), 5, 2**20, None, 0, 7, "")
    read = overview(pages, job(), cluster=ClusterView("ok", cluster=False, nodes=(node,), unowned=(), problems=()))
    assert "Server ok 1 master" in read.text
    assert "a.example:1 16,384 5 1.0 MiB no limit 0 7" in read.text
    assert "strip" not in [each.get("class") for each in read.all("svg")]
    assert "Total" not in read.text


def test_a_target_that_was_not_asked_is_said_so(pages):
    """No cluster, no numbers, no time."""
    read = overview(pages, job(), cluster=None, seen=0.0)
    assert "It has not answered since the daemon began." in read.text
    assert "no answer yet" in read.text
    assert "asked 5" not in read.text


def test_a_run_that_ended_in_an_unknown_way_is_drawn(pages):
    """Another release may know more ways."""
    last = replace(entry(), status="<odd>")
    for html in (
        pages.overview(looks.overview(jobs=(job(last=last),)), SOMEONE),
        pages.job(looks.page(job(last=last), entries=(last,)), SOMEONE),
    ):
        assert "<odd>" in Read(html).text


def test_a_daemon_without_jobs_says_so(pages):
    """An empty page would be no answer."""
    assert "The config has no jobs." in overview(pages).text


def test_a_job_page_tells_of_its_runs(pages):
    """Each run in a row of the table and in a bar, with its outcome as a word and a shape."""
    runs = (
        entry(ago=10, status="failed", error=looks.NO_ROOM, run="aaa1", seconds=3.0),
        entry(ago=80, status="rejects", run="bbb2", slot=None, seconds=12.0, resumed=True),
        entry(ago=200, run="ccc3", full=False, seconds=0.25),
    )
    html = pages.job(looks.page(job(), entries=runs), SOMEONE)
    read = Read(html)
    for words in (
        "failed schedule all rows 182,340 1,204 181,136 3 0 3.0 s aaa1 loader-1",
        "rejects hand resumed 182,340",
        "ok schedule changed rows",
        "0.25 s ccc3",
        "2027-01-15 07:59:47 UTC",
        f"run aaa1, 2027-01-15 07:59:47 UTC, by schedule: failed, 182,340 rows read, 3.0 s: {looks.NO_ROOM}",
        " UTC, the oldest",
        "12 s 3.0 s 0 s",
    ):
        assert words in read.text
    chart = html[html.index('<svg class="chart"') : html.index('<table class="runs">')]
    bars = re.findall(r'<g role="img" class="(\w+)">', chart)
    assert bars == ["ok", "rejects", "failed"]  # the newest at the right
    assert re.findall(r'<use href="#(s-\w+)"/></svg></g>', chart) == ["s-rejects", "s-failed"]
    heights = [float(each) for each in re.findall(r'height="([\d.]+)" class="bar"', chart)]
    assert heights == [pytest.approx(10.4, abs=0.1), 72.0, 36.0]


def test_older_runs_are_folded(pages):
    """Ten are open, the other forty are a click away, and all are there."""
    read = Read(pages.job(looks.page(), SOMEONE))
    assert "40 older runs" in read.text
    assert read.text.count("loader-1") == 50


def test_a_job_page_tells_of_its_chunks(pages):
    """A cell says its chunks, state, rows and rejects; the legend counts chunks, not cells."""
    cells = (
        Cell(1, 3, "loaded", 30_000, 0, 1.2),
        Cell(4, 4, "retried", 10_000, 0, 0.5),
        Cell(5, 5, "rejects", 9_998, 2, 0.5),
        Cell(6, 6, "waiting", 0, 0, 0.0),
        Cell(7, 12, "owed", 0, 0, 0.0),
    )
    html = pages.job(looks.page(grid=Grid("feed01", ended=False, of=12, cells=cells)), SOMEONE)
    read = Read(html)
    assert "Chunks of the run in progress, feed01" in read.text
    counts = "3 loaded 1 loaded after retries 1 loaded, with rejected rows 1 waiting 6 still owed of 12 chunks"
    assert counts in read.text
    drawn = [each for each in read.all("i") if "title" in each]
    assert [each["title"] for each in drawn] == [
        "chunks 1 to 3: loaded, 30,000 rows, 1.2 s",
        "chunk 4: retried, 10,000 rows, 0.50 s",
        "chunk 5: rejects, 9,998 rows, 2 rejected, 0.50 s",
        "chunk 6: waiting, 0 rows",
        "chunks 7 to 12: owed, 0 rows",
    ]
    assert all(each["aria-label"] == each["title"] for each in drawn)
    unknown = Grid("feed01", ended=True, of=None, cells=cells)
    assert "of an unknown number of chunks" in Read(pages.job(looks.page(grid=unknown), SOMEONE)).text


def test_a_job_page_tells_what_it_does(pages):
    """Config, statement and sample to the letter; or why they are missing."""
    read = Read(pages.job(looks.page(), SOMEONE))
    assert looks.CONFIG in "".join(read.words)
    assert looks.STATEMENT in "".join(read.words)
    assert 'HMSET orders_•••• sid •••• sname "••••" address "••••"' in read.text
    assert "sent to cache-2.example:6379" in read.text
    bare = Read(pages.job(looks.page(statement="", sample=None, why=looks.LINK_DOWN), SOMEONE))
    assert looks.LINK_DOWN in bare.text
    assert "Statement" not in bare.text


def test_a_job_that_never_ran_has_a_page(pages, written):
    """It says so, in place of tables."""
    read = Read(written["empty"])
    for words in ("never", "It has not run yet.", "This daemon has not run it yet.", "by hand no schedule"):
        assert words in read.text


def test_a_rejects_page_tells_of_each_row(pages):
    """Key, slot, master, reason, times and attempts; how many there are; that keys are masked, and how to see them."""
    read = Read(pages.rejects(looks.rejects(), SOMEONE))
    for words in (
        "1,204 rows could not be written; here are the latest 24.",
        "orders_•••04 3244 cache-5.example:6379 sid is NULL: no key can be made of it 1 d 1 h ago 4 min ago 5",
        "Keys are masked. daemon.show_values: true in the config shows them here",
        "loader rejects list stock-levels --values on a terminal",
    ):
        assert words in read.text
    assert "masked" not in Read(pages.rejects(looks.rejects(masked=False), SOMEONE)).text
    none = Read(pages.rejects(looks.rejects(count=0, rejects=()), CLERK))
    assert "No row of this job is rejected." in none.text
    assert [each["action"] for each in none.all("form")] == ["/sign-out"]


def test_what_others_wrote_is_never_html(pages):
    """Names, errors, keys and values stand there as text, and what cannot be seen in them is spelled out."""
    last = entry(status="failed", error=NASTY, host=NASTY, run=NASTY)
    running = replace(looks.jobs()[1].progress, waits=NASTY, run=NASTY)
    bad = job(NASTY, "failed", last=last, schedule=NASTY, progress=running)
    node = NodeView(NASTY, ((0, 16383),), 1, 1, None, 1, 1, NASTY)
    cluster = ClusterView("fail", cluster=True, nodes=(node,), unowned=(), problems=(NASTY,))
    view = looks.overview(jobs=(bad,), cluster=cluster, problems=(NASTY,), host=NASTY, source=NASTY, target=NASTY)
    listed = tuple(replace(each, key=NASTY, node=NASTY, reason=NASTY) for each in looks.rejects().rejects)
    shown = looks.page(bad, entries=(last,), config=NASTY, statement=NASTY, sample=(NASTY, NASTY), why=NASTY)
    drawn = {
        "overview": (pages.overview(view, CLERK), 10),
        "job": (pages.job(shown, CLERK), 8),
        "rejects": (pages.rejects(looks.rejects(view=bad, rejects=listed), CLERK), 72),
        "missing": (pages.missing(NASTY, SOMEONE), 1),
        "sign-in": (pages.sign_in(GUEST, NASTY), 0),
    }
    for name, (html, least) in drawn.items():
        html.encode()  # no half characters are left
        read = Read(html)
        assert all("src" in attrs for attrs in read.all("script")), name
        assert "alert(1)</script>" not in html, name
        assert "49" not in re.findall(r"&amp;(\d+)", html), name
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\udcff]", html), name
        assert "".join(read.words).count(TOLD) >= least, name
    assert Read(drawn["sign-in"][0]).all("input")[0]["value"] == TOLD


def test_forms_are_for_those_who_signed_in(pages):
    """Others see where to sign in, and where there are no actions, nothing of them."""

    def acts(draw, viewer):
        return [each["action"] for each in Read(draw(viewer)).all("form")]

    def links(draw, viewer):
        return [each["href"] for each in Read(draw(viewer)).all("a") if "sign-in" in each["href"]]

    failing = looks.page(job("orders", "rejects", rejects=3))

    def page(viewer):
        return pages.job(failing, viewer)

    run, pause, retry = (f"/jobs/orders/{what}" for what in ("run", "pause", "retry"))
    assert acts(page, CLERK) == ["/sign-out", run, pause, retry]
    assert acts(page, GUEST) == acts(page, SOMEONE) == []
    assert set(links(page, GUEST)) == {"/sign-in?next=%2Fjobs%2Forders"}
    assert links(page, SOMEONE) == links(page, CLERK) == []

    def paused(viewer):
        return pages.job(looks.page(job("orders", "paused")), viewer)

    assert acts(paused, CLERK) == ["/sign-out", run, "/jobs/orders/resume"]
    rejects = looks.rejects()
    assert acts(lambda viewer: pages.rejects(rejects, viewer), CLERK) == ["/sign-out", "/jobs/stock-levels/retry"]
    assert acts(lambda viewer: pages.overview(looks.overview(), viewer), GUEST) == ["/"]
    assert all(each["method"] == "post" for each in Read(page(CLERK)).all("form"))


def test_a_run_is_not_asked_for_while_one_is_under_way(pages):
    """The button is there, and cannot be pressed."""

    def button(view):
        return next(each for each in Read(pages.job(looks.page(view), CLERK)).all("button") if each["class"] == "main")

    assert "disabled" in button(looks.jobs()[1])
    assert "disabled" not in button(job())


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        ("run", "The run was requested."),
        ("pause", "The schedule is paused."),
        ("resume", "The schedule was resumed."),
        ("retry", "The rejected rows are being retried."),
        ("busy", "Nothing was started: a run of this job is in progress."),
        ("away", "Nothing was done: the target does not answer."),
    ],
)
def test_what_became_of_an_action_is_told(pages, notice, words):
    """In fixed sentences: a notice that is none of them says nothing, whoever made it up."""
    assert words in Read(pages.job(looks.page(), replace(CLERK, notice=notice))).text
    plain = pages.job(looks.page(), CLERK)
    assert pages.job(looks.page(), replace(CLERK, notice=f"{notice}!")) == plain


def test_a_token_is_asked_for_as_a_password(pages):
    """It is posted with the page to go to then; a wrong one is told."""
    read = Read(pages.sign_in(GUEST, "/jobs/orders"))
    inputs = [("next", "hidden"), ("username", "text"), ("token", "password")]  # the name is for password managers
    assert [(each["name"], each["type"]) for each in read.all("input")] == inputs
    assert read.all("input")[0]["value"] == "/jobs/orders"
    assert read.all("form") == [{"method": "post", "action": "/sign-in"}]
    assert "That is not the token." not in read.text
    assert "That is not the token." in Read(pages.sign_in(replace(GUEST, notice="refused"))).text
    assert "no daemon.token" in Read(pages.sign_in(SOMEONE)).text


def test_pages_renew_themselves_without_a_script_too(written):
    """Every ten seconds; a page with a form to fill in does not."""
    for name, html in written.items():
        found = re.findall(r'<noscript><meta http-equiv="refresh" content="10; url=([^"]+)"></noscript>', html)
        assert len(found) == (0 if name in {"sign-in", "missing"} else 1), name
    assert 'url=/jobs/prices"' in written["failed"]  # without what became of an action


def test_parts_that_are_renewed_can_be_found_again(written):
    """The script finds them by their ids."""
    for name, html in written.items():
        parts = [attrs for _, attrs in Read(html).elements if "data-live" in attrs]
        assert all("id" in attrs for attrs in parts), name
        assert parts or name in {"sign-in", "missing"}


def test_columns_have_heads_and_times_are_exact(written):
    """Heads say of what they are; a time is a machine's, too."""
    for name, html in written.items():
        read = Read(html)
        assert all(each.get("scope") in {"row", "col"} for each in read.all("th")), name
        for each in read.all("time"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["datetime"]), name
            assert each["title"] == each["datetime"].replace("T", " ").replace("Z", " UTC")


def test_two_hundred_jobs_are_drawn_at_once(pages, capsys):
    """A page each two seconds costs the daemon next to nothing."""
    view = looks.many(200)
    times = []
    for _ in range(9):
        began = time.perf_counter()
        html = pages.overview(view, SOMEONE)
        times.append(time.perf_counter() - began)
    with capsys.disabled():
        print(f"\n200 jobs: {min(times) * 1000:.1f} ms at best, {len(html) / 1024:.0f} KiB")  # noqa: T201  # a measure to read
    assert len(Read(html).all("tbody")) == 201
    assert min(times) < 0.5


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (ranges([(0, 5), (7, 7)]), "0-5, 7"),
        (ranges([(at, at) for at in range(0, 40, 2)]), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, and 8 more ranges"),
        (spark([0.0, 0.0]), ""),
        (spark([]), ""),
        (spark([0.0, 10.0, 5.0]), "M0 24L0 23.0L48 2.0L96 12.5L96 24"),
    ],
)
def test_numbers_in_words(made, words):
    """Short, with what matters of them."""
    assert made == words


def test_colors_of_text_are_told_from_their_ground(pages):
    """At least 4.5 to 1, in light and in dark, as WCAG has it."""
    style = pages.static("style.css")[0].decode()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", block)) for block in style.split("@media (prefers", 1)[:2]
    )
    assert light.keys() == dark.keys()
    texts = ("text", "soft", "link", "ok", "running", "rejects", "late", "failed", "stopped", "paused")
    for colors in (light, dark):
        pairs = [(text, ground) for text in texts for ground in ("panel", "ground", "sunk")]
        pairs += [("on", each) for each in colors if re.fullmatch(r"n\d|link", each)]
        pairs += [("failed", "wash-failed"), ("ok", "wash-good"), ("rejects", "wash-why"), ("text", "wash-why")]
        pairs += [("text", "wash-failed"), ("soft", "wash-failed"), ("soft", "wash-why")]
        assert {
            pair: contrast(colors[pair[0]], colors[pair[1]]) for pair in pairs if contrast(*map(colors.get, pair)) < 4.5
        } == {}


def contrast(one, other):
    """WCAG 2.2, "contrast ratio" and "relative luminance"."""

    def luminance(color):
        digits = color[1:] if len(color) == 7 else "".join(each * 2 for each in color[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


assert NOW == 1_800_000_000  # the times above are of it


def test_unknown_is_not_zero(pages):
    """Of a job whose Redis does not answer nothing is said that was not read: not never, not none, not 0."""
    view = job("lost", "unknown", last=None, success=None, rates=())
    row = pages.overview(looks.overview(jobs=(view,)), SOMEONE).partition('<tbody id="job-lost"')[2]
    told = Read("<table><tbody" + row.partition("</tbody>")[0] + "</tbody></table>").text
    page = Read(pages.job(looks.page(view, entries=None, grid=None), SOMEONE)).text
    for text in (told, page.partition("What it does")[0]):
        assert "not known" in text
        assert not re.search(r"\b(never|none|none yet|0|It has not run yet)\b", text), text
    assert "? failing" in overview(pages, view).text
    assert "0 failing" in overview(pages, view, job("fine")).text
    rejects = Read(pages.rejects(looks.rejects(view=view, count=None, rejects=(), why=looks.LINK_DOWN), SOMEONE)).text
    assert "No row of this job is rejected" not in rejects
    part = replace(view, part_of="all", status=replace(view.status, job="all/lost"))
    row = pages.overview(looks.overview(jobs=(part,)), SOMEONE).partition('<tbody id="job-all"')[2]
    assert not re.search(r">(never|none|none yet|0)<", row.partition("</tbody>")[0])


def test_what_was_known_last_is_shown_as_such(pages):
    """A paused job stays paused while its Redis is away, with the time of what is known."""
    view = job("still", "paused", is_known=False, asked=NOW - 600)
    text = overview(pages, replace(view, status=replace(view.status, state="unknown", paused=None))).text
    assert "unknown numbers of 07:50" in text
    assert "does not answer: numbers below are those known last. They go on once it does." in text
    never = job("lost", "unknown", last=None, success=None)
    assert "does not answer: nothing is known yet. They go on once it does." in overview(pages, never).text
    text = overview(pages, view).text
    assert "paused as known at 07:50" in text
    assert "still paused since 07:50" in text
    assert "1 not known" in text


def test_an_error_is_said_once(pages):
    """Jobs that fail for one reason are one line, whatever their tables are called; masters that answer alike, too."""
    failing = [
        job(f"t{at}", "failed", last=entry(status="failed", error=f"table 't{at}' does not exist")) for at in range(9)
    ]
    text = overview(pages, *failing).text
    assert text.count("does not exist") == 1
    assert "9 jobs t0, t1, t2, t3 and 5 more failed 9 failures since 07:56" in text
    down = "redis a:1: Connection refused"
    masters = tuple(NodeView(f"{at}:1", ((0, 5),), problem=f"redis {at}:1: Connection refused") for at in "ab")
    cluster = ClusterView("fail", cluster=True, nodes=masters, unowned=(), problems=(down,))
    failed = job("x", "failed", last=entry(status="failed", error=down))
    text = overview(pages, failed, cluster=cluster, problems=(down,)).text
    assert text.count(down) == 1
    assert "see the problem above" in text


def test_failures_in_a_row_are_one(pages):
    """The page of a job tells their error once, with how often and since when; each of them is a click away."""
    runs = tuple(entry(ago=60.0 + 60 * at, status="failed", error="gone", run=f"r{at}") for at in range(7))
    failed = job("x", "failed", last=runs[0], failures=Failures(7, NOW - 421, NOW - 60, "gone"))
    html = pages.job(looks.page(failed, entries=runs, grid=None), SOMEONE)
    text = Read(html).text
    assert "7 failures since 07:52 gone" in text
    assert "7 failures like this since 07:52" in text
    assert html.count('<p class="error failed"><bdi>gone</bdi></p>') == 1
    assert all(f"r{at}" in text for at in range(7))


def test_a_run_that_failed_before_its_chunks_says_so(pages):
    """It has run, though no chunk was seen."""
    last = entry(status="failed", error="no such table", chunks={"total": 0, "done": 0, "retried": 0}, run="abc")
    text = Read(pages.job(looks.page(job("x", "failed", last=last), entries=(last,), grid=None), SOMEONE)).text
    assert "The last run, abc, failed before its first chunk, for the reason above." in text
    assert "has not run" not in text


def test_a_run_by_hand_says_whose(pages):
    """A failure from somebody's laptop does not look as if the schedule had failed."""
    last = entry("x", status="failed", error="gone", slot=None, host="anna@laptop")
    view = job("x", "failed", last=last)
    assert "x failed (by hand, anna@laptop)" in overview(pages, view).text
    assert "by hand, anna@laptop" in Read(pages.job(looks.page(view), SOMEONE)).text


def row_of(pages, view, **facts):
    """What the overview tells of a job, and its classes."""
    html = pages.overview(looks.overview(jobs=(view,), **facts), SOMEONE)
    row = html.partition(f'<tbody id="job-{view.status.job}"')[2].partition("</tbody>")[0]
    return row.partition(">")[0], Read(f"<table><tbody{row}</tbody></table>").text


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (looks.followed(), "as rows change caught up caught up of 10 min"),
        (looks.followed(behind=20.0), "as rows change 20 s behind 20 s behind of 10 min"),
        (looks.followed(max_age=None), "as rows change caught up 1 h 30 min ago"),
        (looks.followed(schedule="every 1d", due=NOW + 60), "in 1 min caught up caught up of 10 min"),
        (looks.followed(is_running=False), "as rows change nobody follows it now 1 h 30 min of 10 min"),
        (looks.followed(is_running=False, owed="the plan was changed"), "as rows change once all rows are read 1 h"),
        (looks.followed(state="running", progress=looks.jobs()[1].progress), "as rows change caught up"),
        (looks.followed(state="unknown", is_running=False, success=None), "as rows change not known"),
    ],
)
def test_a_job_that_is_followed_is_not_run_by_hand(pages, view, words):
    """It is brought over as rows change, and as old as what is missing; a follower is no run in progress."""
    classes, text = row_of(pages, view)
    assert words in text
    assert "by hand" not in text
    assert "run 5a5a" not in text
    is_calm = (view.lag is not None and view.status.state == "ok") or view.status.state == "unknown"
    assert ('class="job calm"' in classes) == is_calm


def test_why_a_job_is_not_followed_on_is_told_once(pages):
    """Under its name, or by the problem of the server that is why; a job that is late because of it says it there."""
    why = "mysql db:3306: cannot connect"
    waits = looks.followed(behind=90.0, waiting=why)
    classes, text = row_of(pages, waits, problems=())
    assert f"not followed on {why}" in text
    assert "calm" not in classes
    text = overview(pages, waits, problems=(why,)).text
    assert text.count(why) == 1
    assert "not followed on" not in text
    late = looks.followed(state="late", behind=900.0, waiting=why)
    text = overview(pages, late, problems=()).text
    assert text.count(why) == 1
    assert f"prices_now late since 07:55 (5 min ago) {why} Followed again by itself once that is over." in text
    page = Read(pages.job(looks.page(waits, why=why), SOMEONE)).text
    assert page.count(why) == 1
    assert "1 min 30 s behind 68.4 KiB of binlog; 812 changes, 640 rows read by loader-1, pid 812, since 06:30" in page


def test_why_a_job_cannot_be_followed_is_on_its_page(pages):
    """With since when; the overview has it among what needs attention."""
    view = looks.followed(state="failed", is_running=False, unfollowed=Unfollowed(NOW - 3600, "no right"), last=entry())
    assert "prices_now failed since 07:00 (1 h ago) not followed: no right Tried again by itself." in (
        overview(pages, view).text
    )
    assert "not followed since 07:00 no right" in Read(pages.job(looks.page(view), SOMEONE)).text


def test_a_run_that_the_follower_makes_is_by_nobody(pages):
    """It says what it was for, and its failure names no person."""
    last = entry("prices_now", status="failed", error="gone", slot=None, follows=True, host="loader-1")
    view = looks.followed(state="failed", last=last, is_running=False)
    text = overview(pages, view).text
    assert "by hand" not in text
    assert "Tried again by itself." in text
    assert "to follow it" in Read(pages.job(looks.page(view), SOMEONE)).text


def test_an_address_finds_and_sorts(pages):
    """Without script, too: words of names, a state, an order, and links that keep what is looked for."""
    view = looks.overview(jobs=(*(job(f"t_{at}", last=entry(read=at)) for at in (3, 1, 2)), *looks.parts(300)))

    def shown(**query):
        return rows_of(pages.overview(view, SOMEONE, Listing.of(query)))

    assert shown(sort="rows") == ["t_1", "t_2", "t_3", "students"]
    assert shown(sort="-rows", find="t_") == ["students", "t_3", "t_2", "t_1"]
    assert shown(find="T_ 2") == ["students", "t_2"]
    assert shown(only="failed") == ["students"]
    never = job("t_0", "never", last=None, success=None, due=None)
    some = looks.overview(jobs=(*(job(f"t_{at}", last=entry(read=at)) for at in (10, 2)), never))
    for sort, order in (
        ("job", "0 2 10"),
        ("-job", "10 2 0"),
        ("rows", "2 10 0"),
        ("-rows", "10 2 0"),
        ("-next", "2 10 0"),
    ):
        drawn = rows_of(pages.overview(some, SOMEONE, Listing.of({"sort": sort})))
        assert drawn == [f"t_{number}" for number in order.split()], sort
    html = pages.overview(some, SOMEONE, Listing.of({"find": "t_2"}))
    assert "<b>3</b> jobs" in html
    assert shown(sort="nothing", find="t_1", only="ok") == ["students", "t_1"]
    html = pages.overview(view, SOMEONE, Listing.of({"find": "student_105", "only": "attention", "sort": "-rows"}))
    read = Read(html)
    listed = html.partition('<details class="parts"')[2].partition("</details>")[0]
    assert listed.count("<li><a href") == 1
    assert {"class": "parts", "open": None} in read.all("details")
    assert {"href": "/?find=student_105&only=attention&sort=rows"} in read.all("a")
    assert any(each.get("value") == "student_105" for each in read.all("input"))
    assert '<meta http-equiv="refresh" content="10; url=/?find=student_105&amp;only=attention&amp;sort=-rows">' in html


def test_keys_of_rejects_are_for_those_who_signed_in(pages):
    """They have a link that shows them, others one that signs in."""
    assert {"class": "button quiet", "href": "/jobs/stock-levels/rejects?keys=shown"} in Read(
        pages.rejects(looks.rejects(), CLERK)
    ).all("a")
    assert "Show the keys" not in pages.rejects(looks.rejects(), GUEST)


def test_a_master_that_is_away_is_one_problem(pages):
    """It is told once, and that it does not answer where it stands; masters that are up are not told as broken."""
    down = "redis a:1: cannot connect: Connection refused"
    refused = "redis b:1: CLUSTERDOWN The cluster is down"
    masters = (
        NodeView("a:1", ((0, 8191),), problem=down),
        NodeView("b:1", ((8192, 16383),), keys=5, used=9, replicas=1, problem="redis b:1 reports cluster_state:fail"),
    )
    cluster = ClusterView("fail", cluster=True, nodes=masters, unowned=(), problems=(down, masters[1].problem))
    html = pages.overview(looks.overview(jobs=(job("x"),), cluster=cluster, problems=(down, refused)), SOMEONE)
    text = Read(html).text
    assert f"1 problem {down} therefore {refused}" in text
    assert text.count("Connection refused") == text.count("CLUSTERDOWN") == 1
    assert html.count('class="broken"') == 1
    assert "1 a:1 does not answer 8,192" in text
    assert "2 b:1 up, but refuses keys while other slots have no master 8,192" in text
    alone = replace(cluster, nodes=(masters[1],), problems=(masters[1].problem,))
    html = pages.overview(looks.overview(jobs=(job("x"),), cluster=alone, problems=(refused,)), SOMEONE)
    assert f"1 problem {refused}" in Read(html).text
    assert html.count('class="broken"') == 1


def test_what_follows_from_a_master_that_is_away_is_one_line():
    """The cause comes first, as it was said; what the other masters answer because of it is said once."""
    cause = "redis a:1: cannot connect: Connection refused"
    down = [f"redis {node}: CLUSTERDOWN The cluster is down" for node in ("b:2", "c:3")]
    assert told_once([down[0], cause, down[1], cause]) == (cause, "redis b:2, c:3: CLUSTERDOWN The cluster is down")
