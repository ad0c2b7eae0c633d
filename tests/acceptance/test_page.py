"""The status page in a real browser: what it shows is what the runs did, and it works as people use it."""

import json
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from loader.lab.process import free_ports, wait
from loader.web.render import Renderer
from loader.web.views import Viewer
from support.command import HOST, Desk
from support.daemons import daemon
from support.database import World
from support.page_samples import many_parts

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--disable-background-networking --disable-component-update --disable-gpu --disable-quic --disable-sync"
    " --no-first-run --no-sandbox"
)
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
SIZES = {1280: 900, 390: 844}
TOKEN = "0123456789abcdef-page"
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
SECRET = "secret-note"
IDS = "rows => rows.map(row => row.id)"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def prepare(world):
    world.sql(
        "CREATE TABLE score (id int PRIMARY KEY, points int, note varchar(40))",
        f"INSERT INTO score VALUES (1, 10, '{SECRET}'), (2, 20, NULL), (3, 30, 'x')",
        "CREATE TABLE slow (id int PRIMARY KEY)",
        f"INSERT INTO slow VALUES {','.join(f'({number})' for number in range(1, 3001))}",
        "ANALYZE TABLE slow",
        f"CREATE TABLE `{HOSTILE}` (id int PRIMARY KEY, `{HOSTILE}` varchar(80))",
    )
    with world.mysql.cursor() as cursor:
        cursor.execute(f"INSERT INTO `{HOSTILE.replace('%', '%%')}` VALUES (1, %s)", (HOSTILE,))
    world.redis.set("score_2", "taken")


@pytest.fixture(scope="module")
def scene(lab, tmp_path_factory):
    """A daemon whose jobs do as jobs do; its port, its desk, and the documents of the runs before it."""
    directory = tmp_path_factory.mktemp("scene")
    world = World(lab, directory)
    desk = Desk(world, directory)
    prepare(world)
    port = free_ports(1)[0]
    slow = {"id": "id", "nap": "SLEEP(0.02)"}
    desk.write(
        {
            "stu": {"table": "stu", "key": "stu_{sid}", "schedule": {"cron": "0 3 * * *"}, "max_age": "1d"},
            "orders": {"table": "slow", "key": "slow_{id}", "fields": slow, "chunk_rows": 50, "max_age": "1h"},
            "prices": {"table": "gone", "schedule": {"every": "1d"}},
            "lessons": {"table": "stu", "key": "lessons_{sid}", "max_age": "1s", "schedule": {"every": "1d"}},
            "score": {"table": "score", "schedule": {"every": "1d"}},
            "hostile": {"table": HOSTILE, "key": "hostile_{id}"},
            "exams": {"table": "stu", "key": "exams_{sid}", "schedule": {"every": "1d"}},
        },
        listen=f"{HOST}:{port}",
        daemon={"token": TOKEN},
    )
    done = {job: desk.run("sync", job, "-o", "json") for job in ("stu", "prices", "lessons", "score", "hostile")}
    assert [result.code for result in done.values()] == [0, 2, 0, 3, 0]
    time.sleep(1.1)  # the lessons become late
    with daemon(desk) as running:
        running.until("daemon started")
        yield port, desk, {job: json.loads(result.out) for job, result in done.items()}
        running.end()
        assert not running.of("run crashed: please report this")
        assert TOKEN not in str(running.lines)
    world.close()


class Visitor:
    """A window of the browser at the daemon: what it asked for, and what its console said."""

    def __init__(self, browser, port, **options):
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page = self.context.new_page()
        self.base = f"http://{HOST}:{port}"
        self.asked, self.said = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))

    def go(self, path="/"):
        answer = self.page.goto(self.base + path)
        assert answer.ok, answer.status
        return self.page

    def row(self, job):
        """What a person reads of a job on the overview."""
        return " ".join(self.page.locator(f"#job-{job}").inner_text().split())

    def sign_in(self, token=TOKEN):
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def close(self):
        """Nothing was asked of another host, and nothing went wrong."""
        self.context.close()
        assert self.asked
        assert [url for url in self.asked if not url.startswith(self.base + "/")] == []
        assert self.said == []


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, scene):
    visitors = []

    def open_window(**options):
        visitors.append(Visitor(browser, scene[0], **options))
        return visitors[-1]

    yield open_window
    for visitor in visitors:
        visitor.close()


def test_numbers_are_those_of_the_runs(visit, scene):
    """Rows, outcome, rejects and errors on the pages are what the runs said of themselves."""
    _, desk, done = scene
    visitor = visit()
    page = visitor.go()
    for job, said in done.items():
        row = visitor.row(job)
        assert f" {said['rows']['read']:,} " in row, row
        assert said["status"] in row
        assert (said["error"] or "") in page.locator("main").inner_text()
    assert page.locator("#job-score a.rejects").inner_text() == "1"
    assert visitor.row("exams").count("never") == 2
    document = desk.run("cluster", "-o", "json").document
    cells = [row.split("\t") for row in page.locator("table.nodes tbody tr").all_inner_texts()]
    for master in document["masters"]:
        (cell,) = [cell for cell in cells if master["node"] in cell[0]]
        assert [cell[1], cell[4]] == [f"{master['slots']:,}", str(master["replicas"])]
    for job, said in done.items():
        visitor.go(f"/jobs/{job}")
        first = page.locator("#runs table tbody tr").first.inner_text()
        assert said["run"] in first
        assert f"{said['rows']['written']:,}" in first.split("\t")
        assert page.locator(".chart .bar").count() == 1


def test_states_are_told_apart(visit):
    """A failing, a late and a running job differ by word and by shape, not by colour alone."""
    visitor = visit()
    page = visitor.go("/jobs/orders")
    page.get_by_role("link", name="Sign in").first.click()
    visitor.sign_in()
    page.get_by_role("button", name="Run now").click()
    playwright.expect(page.locator("#state")).to_contain_text("running")
    playwright.expect(page.locator("#now")).to_contain_text("of about")
    playwright.expect(page.locator("#now")).not_to_contain_text("0 chunks", timeout=15_000)
    assert page.get_by_role("button", name="Run now").is_disabled()
    visitor.go()
    states = {"prices": "failed", "lessons": "late", "orders": "running", "stu": "ok", "exams": "never"}
    shapes = {}
    for job, state in states.items():
        badge = page.locator(f"#job-{job} .state").first
        assert badge.inner_text().strip() == state
        shapes[job] = badge.locator("use").get_attribute("href")
    assert len(set(shapes.values())) == len(states)
    before = visitor.row("orders")
    assert "of about 3,000 rows" in before
    wait(lambda: visitor.row("orders") != before, "the page to go on by itself")
    assert "to go" in visitor.row("orders")
    for name, path in {"overview": "/", "job": "/jobs/orders", "rejects": "/jobs/score/rejects"}.items():
        picture(visitor, name, path)


def picture(visitor, name, path):
    """Take a page in both widths and both schemes; none is wider than the window."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page = visitor.page
    for width, height in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            visitor.go(path)
            page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_values_are_masked_and_hostile_names_are_text(visit, scene):
    """No value of a row is on a page; what looks like markup in a table's or a column's name is read as text."""
    visitor = visit()
    page = visitor.go("/jobs/hostile")
    text = page.locator("main").inner_text()
    assert HOSTILE in text
    assert "hostile_•••" in text
    visitor.go("/jobs/score/rejects")
    text = page.locator("main").inner_text()
    assert "score_•••" in text
    assert "WRONGTYPE" in text
    assert "score_2" not in page.content()
    visitor.go("/jobs/score")
    assert SECRET not in page.content()
    assert "HMSET score_••• id ••• points •••" in page.locator("main").inner_text()


def test_actions_need_the_token(visit, scene):
    """Without it there is no button; a wrong one is refused; with it jobs run, pause, go on, rejects are tried."""
    _, desk, _ = scene
    visitor = visit()
    page = visitor.go("/jobs/exams")
    assert page.locator("form").count() == 0
    page.get_by_role("link", name="Sign in").first.click()
    visitor.sign_in("not the token, really")
    assert "not the token" in page.locator("main").inner_text()
    visitor.sign_in()
    assert page.url.endswith("/jobs/exams")
    page.get_by_role("button", name="Run now").click()
    wait(lambda: desk.world.redis.exists("exams_00000001"), "the run")
    playwright.expect(page.locator("#runs")).to_contain_text("hand")
    page.get_by_role("button", name="Pause the schedule").click()
    playwright.expect(page.locator("#state")).to_contain_text("paused")
    page.get_by_role("button", name="Resume the schedule").click()
    playwright.expect(page.locator("#state")).to_contain_text("ok")
    desk.world.redis.delete("score_2")
    visitor.go("/jobs/score")
    page.get_by_role("button", name="Retry rejects").click()
    wait(lambda: desk.world.redis.exists("score_2"), "the reject's row")
    visitor.go()
    page.get_by_role("button", name="Sign out").click()
    visitor.go("/jobs/exams")
    assert page.locator("form").count() == 0
    (refused,) = visitor.said
    assert "403" in refused
    visitor.said.clear()


def test_jobs_are_found_and_chosen(visit):
    """By a word of the name and by state; the page stays so while it goes on by itself; all are there without."""
    visitor = visit()
    page = visitor.go()

    def shown():
        return [row.removeprefix("job-") for row in page.locator("#jobs > tbody:visible").evaluate_all(IDS)]

    everything = shown()
    assert everything[0] == "prices"  # failed
    assert everything.index("lessons") < everything.index("score") < everything.index("exams")
    page.get_by_label("Find jobs by name").fill("S")
    assert set(shown()) == {job for job in everything if "s" in job}
    assert page.locator("#found").inner_text() == f"{len(shown())} of 7"
    page.get_by_label("Find jobs by name").fill("")
    page.get_by_label("Show only").select_option("attention")
    assert set(shown()) == {"prices", "lessons", "score"}
    with page.expect_response(lambda answer: answer.url == f"{visitor.base}/"):
        pass
    with page.expect_response(lambda answer: answer.url == f"{visitor.base}/"):
        pass  # what the first answer changed is to be seen now
    assert set(shown()) == {"prices", "lessons", "score"}
    page.get_by_label("Show only").select_option("")
    assert shown() == everything


def drawn(visitor, view):
    """Show a view that a test has made, in place of the daemon's."""
    pages = Renderer()
    made = {"view": view}
    visitor.page.route(
        f"{visitor.base}/",
        lambda route: route.fulfill(body=pages.overview(made["view"], Viewer()), content_type="text/html"),
    )
    visitor.page.goto(visitor.base)
    return made


def test_parts_are_folded_and_found(visit):
    """They are a click away, and unfold where they are looked for; at once, also if there are two thousand."""
    visitor = visit()
    made = drawn(visitor, many_parts(2000))
    page = visitor.page
    parts = page.locator("#job-students details.parts li:visible")
    assert parts.count() == 0
    page.get_by_label("Find jobs by name").fill("student_199")
    assert parts.count() == 11
    assert page.locator("#found").inner_text() == "11 of 2,003"
    assert page.locator("#jobs > tbody:visible").count() == 1
    spent = page.evaluate("(() => { const began = performance.now(); sift(); return performance.now() - began; })()")
    assert spent < 300
    page.get_by_label("Show only").select_option("failed")
    page.get_by_label("Find jobs by name").fill("students")
    assert parts.count() == 3
    made["view"] = replace(made["view"], jobs=made["view"].jobs[2:])  # what fails first is another job now
    playwright.expect(page.locator("#counts")).to_contain_text("2 jobs")
    assert parts.count() == 3
    page.get_by_label("Show only").select_option("")
    page.get_by_label("Find jobs by name").fill("")
    assert parts.count() == 0
    page.locator("#job-students details.parts > summary").click()
    playwright.expect(parts).to_have_count(2000)
    calm = [replace(each, status=replace(each.status, state="ok", late=False)) for each in made["view"].jobs[:1]]
    failing = made["view"]
    for view, order in (
        (replace(failing, jobs=(*calm, *failing.jobs[1:])), ["job-students", "job-prices"]),
        (failing, ["job-prices", "job-students"]),
    ):
        made["view"] = view
        playwright.expect(page.locator("#jobs > tbody").first).to_have_id(order[0])
        assert page.locator("#jobs > tbody").evaluate_all(IDS) == order
        assert parts.count() == 2000  # what was unfolded stays so
    PICTURES.mkdir(parents=True, exist_ok=True)
    for width, height in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=PICTURES / f"parts-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_columns_sort(visit):
    """By a click or by Enter, from either end; the address keeps it, and the focus stays while the page goes on."""
    visitor = visit()
    page = visitor.go()

    def rows():
        return [row.removeprefix("job-") for row in page.locator("#jobs > tbody").evaluate_all(IDS)]

    everything = rows()
    head = page.get_by_role("columnheader", name="Job", exact=True)
    head.get_by_role("link").click()
    playwright.expect(head).to_have_attribute("aria-sort", "ascending")
    assert rows() == sorted(everything)
    head.get_by_role("link").focus()
    page.keyboard.press("Enter")
    playwright.expect(head).to_have_attribute("aria-sort", "descending")
    assert rows() == sorted(everything, reverse=True)
    assert page.url.endswith("/?sort=-job")
    with page.expect_response(lambda answer: "sort=-job" in answer.url):
        pass
    assert page.evaluate("document.activeElement.innerText") == "Job"
    page.reload()
    assert rows() == sorted(everything, reverse=True)
    page.get_by_label("Find jobs by name").fill("s")
    assert page.url.endswith("/?sort=-job&find=s")


def test_it_is_read_without_script(visit):
    """Where there is no JavaScript the page says the same and comes anew; it finds and sorts by its address."""
    visitor = visit(java_script_enabled=False)
    page = visitor.go()
    assert "failed" in visitor.row("prices")
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
    page.get_by_label("Find jobs by name").fill("s")
    page.get_by_label("Show only").select_option("attention")
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_role("columnheader", name="Job", exact=True).get_by_role("link").click()
    assert page.locator("#jobs > tbody").evaluate_all(IDS) == ["job-lessons", "job-prices", "job-score"]
    assert page.locator("#found").inner_text() == "3 of 7 jobs"
    assert page.locator("#counts").inner_text().split()[:2] == ["7", "jobs"]
    page.get_by_role("link", name="Show all").click()
    assert page.locator("#jobs > tbody").count() == 7


CONTROLS = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
    .filter(each => each.type !== "hidden" && each.checkVisibility() && !each.disabled)
    .map(each => {
        window.numbers ??= new Map()
        numbers.set(each, numbers.size)
        return each.outerHTML.slice(0, 90)
    })"""
FOCUSED = """() => { const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
    return [numbers.get(at) ?? -1, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
            box.bottom > 0 && box.top < innerHeight && box.width > 0] }"""


@pytest.mark.parametrize("path", ["/", "/jobs/score", "/jobs/score/rejects", "/sign-in"])
def test_a_keyboard_is_enough(visit, path):
    """Tab reaches each control, in the order in which they stand, and shows where it is."""
    visitor = visit()
    page = visitor.go(path)
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    controls = page.evaluate(CONTROLS)
    assert len(controls) > 5
    for number, control in enumerate(controls):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED) == [number, True, True], control


def test_enter_opens_what_has_the_focus(visit):
    """The link that skips what comes before the content, a job, older runs."""
    visitor = visit()
    page = visitor.go()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    page.get_by_role("link", name="prices").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/prices")


USED = "a, button, input, select, summary, nav, main section, [role=img], [role=group]"
OUTLINE = """used => {
    const named = each => (each.getAttribute("aria-label") || each.labels?.[0]?.innerText || each.innerText
        || document.getElementById(each.getAttribute("aria-labelledby"))?.innerText
        || each.querySelector("title")?.textContent || "").trim()
    const all = words => [...document.querySelectorAll(words)]
    return {
        levels: all("h1, h2, h3, h4").map(each => +each.tagName[1]),
        landmarks: ["header", "nav", "main", "footer"].map(each => all(`body ${each}`).length),
        nameless: all(used).filter(each => each.checkVisibility() && !named(each)).map(each => each.outerHTML),
        headless: all("table").filter(each => !each.closest("table table") && !each.querySelector("th[scope=col]")),
        lang: document.documentElement.lang,
    }
}"""


@pytest.mark.parametrize("path", ["/", "/jobs/prices", "/jobs/score/rejects", "/sign-in"])
def test_it_is_read_by_ear(visit, path):
    """One heading above all and none left out, four landmarks, a name for whatever can be used, heads of columns."""
    visitor = visit()
    found = visitor.go(path).evaluate(OUTLINE, USED)
    levels = found["levels"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    assert found["landmarks"] == [1, 1, 1, 1]
    assert (found["nameless"], found["headless"], found["lang"]) == ([], [], "en")


def test_nothing_else_runs(visit):
    """Had markup come through, the browser would neither run its script nor take its style, nor ask another host."""
    visitor = visit()
    page = visitor.go()
    color = page.evaluate("getComputedStyle(document.body).color")
    page.evaluate("""() => {
        const script = document.createElement("script")
        script.textContent = "window.ran = 1"
        document.body.append(script)
        document.body.setAttribute("style", "color: rgb(1, 2, 3)")
        document.body.insertAdjacentHTML("beforeend", "<img src='https://example.com/x.png' onerror='window.ran = 2'>")
    }""")
    wait(lambda: len(visitor.said) >= 3, "the browser to refuse")
    assert page.evaluate("[window.ran, getComputedStyle(document.body).color]") == [None, color]
    assert all("Content Security Policy" in line for line in visitor.said), visitor.said
    visitor.said.clear()
    visitor.asked[:] = [url for url in visitor.asked if not url.startswith("https://example.com")]
