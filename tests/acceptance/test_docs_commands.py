"""The commands that the documentation shows are typed as they stand, page by page, and print what it shows."""

import secrets
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loader.config.load import JobConfig, load_config
from support.pages import DOCS, ROOT, Command, blocks_of, fits

NOT_RUN = {  # how many blocks of a page cannot be run here, each with its reason beside it
    "tutorial": 1,
    "howto": 2,
    "migrating": 3,
    "daemon": 1,
}
PAGES = {page.stem: blocks_of(page) for page in sorted(DOCS.glob("*.md"))}
CONFIGS = [
    pytest.param(block, id=f"{name}-{block.line}")
    for name, blocks in PAGES.items()
    for block in blocks
    if block.language == "yaml" and not block.skipped and not block.title
]
SERVERS = {"source": {"url": "mysql://loader@db/school"}, "target": {"url": "redis://cache"}}
LOADER_YAML = """\
version: 1
source: {url: "${MYSQL_URL}", password: "${MYSQL_PASSWORD}"}
target: {url: "${REDIS_URL}", password: "${REDIS_PASSWORD}"}
"""
STU = LOADER_YAML + 'jobs: {stu: {table: stu, key: "stu_{sid}"}}\n'


@pytest.fixture
def stage(world, open_shell, tmp_path):
    """A shell that has what `.lab/env` sets, for a database with the table `stu`."""
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")
    own = tmp_path / ".lab"
    own.mkdir()
    for name in ("env", "my.cnf"):
        text = (world.lab.directory / name).read_text()
        (own / name).write_text(text.replace("/test\n", f"/{world.name}\n").replace("=test\n", f"={world.name}\n"))
    (tmp_path / "loader.yaml").write_text(STU)
    account = f"page{secrets.token_hex(4)}@'%'"
    told = dict(line.split("=", 1) for line in (own / "env").read_text().splitlines())
    yield open_shell({"test.stu": f"{world.name}.stu", "school": world.name, "loader@'%'": account}, **told)
    world.sql(f"DROP USER IF EXISTS {account}")


def test_readme(stage, tmp_path):
    """The first table of README, with the passwords filled in by hand."""
    (tmp_path / "loader.yaml").unlink()
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Load your first table\n")[2]
    lines = [line.strip() for line in text.partition("\n## ")[0].splitlines() if line.startswith("    ")]
    assert lines[0].endswith("pip install .")
    for line in lines[1:]:
        stage.type(Command(line.replace(".venv/bin/", "")))
        if line.startswith("cp .env.example .env "):
            (tmp_path / ".env").write_bytes((tmp_path / ".lab/env").read_bytes())
    stage.type(Command("loader get stu 5", ("…", "  address  上海市")))


def test_howto(stage):
    """The recipes, one after the other."""
    stage.play(DOCS / "howto.md")


def test_migrating(stage, tmp_path):
    """The job of each other tool, here."""
    (tmp_path / "loader.yaml").unlink()
    stage.play(DOCS / "migrating.md")


def test_verify(world, stage):
    """A table whose hashes are wrong in each way."""
    stage.type(Command("loader sync stu"))
    world.redis.delete("stu_00000002")
    world.redis.hset("stu_00000001", mapping={"sname": "?", "nickname": "?"})
    world.redis.hset("stu_00000009", mapping={"sid": "00000009", "sname": "?", "address": "?"})
    stage.play(DOCS / "verify.md")


def test_scale(world, stage, tmp_path):
    """A shard of a backfill."""
    world.sql("CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders VALUES (1), (2), (3)")
    (tmp_path / "loader.yaml").write_text(LOADER_YAML + "jobs: {orders: {table: orders}}\n")
    stage.play(DOCS / "scale.md")


def test_daemon(stage, tmp_path):
    """A job is run by a request, with the token."""
    listen = f'daemon: {{listen: "127.0.0.1:{stage.of_here("9462")}", token: "${{LOADER_TOKEN}}"}}\n'
    job = 'jobs: {stu: {table: stu, key: "stu_{sid}", schedule: {every: 1d}}}\n'
    (tmp_path / "loader.yaml").write_text(LOADER_YAML + listen + job)
    stage.type(Command("export LOADER_TOKEN=0123456789abcdef; loader daemon 2> daemon.log &"))
    stage.type(Command("curl -s http://127.0.0.1:9462/readyz", ('{"status":"ok","reasons":[]}',)))
    stage.play(DOCS / "daemon.md")
    stage.type(Command("loader get stu 5", ("…", "  address  上海市")))


def test_rights(stage):
    """The statements that give an account its rights."""
    for name in ("security", "follow"):
        stage.play(DOCS / f"{name}.md")


@pytest.mark.parametrize("block", CONFIGS)
def test_configs(block, tmp_path, monkeypatch):
    """Each config is valid; of a piece of one, the config around it is made up."""
    for name in ("MYSQL_URL", "SHARD1_URL", "SHARD2_URL"):
        monkeypatch.setenv(name, "mysql://loader@db/school")
    for name in ("MYSQL_PASSWORD", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("REDIS_URL", "redis://cache")
    path = tmp_path / "loader.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(completed(YAML(typ="safe").load(block.text)), file)
    assert load_config([path]).jobs


def completed(piece):
    """A config that has a piece of one: top-level keys, keys of a job, or jobs."""
    if "version" in piece:
        return piece
    if piece.keys() <= JobConfig.model_fields.keys():
        piece = {"jobs": {"stu": {"table": "stu"} | piece}}
    elif not piece.keys() & {"source", "sources", "target", "defaults", "jobs", "daemon"}:
        piece = {"jobs": piece}
    servers = {name: value for name, value in SERVERS.items() if f"{name}s" not in piece}
    return {"version": 1, "jobs": {"stu": {"table": "stu"}}} | servers | piece


def test_blocks_that_are_not_run():
    """Few blocks are left out, and each has its reason; every page with commands or files has its test above."""
    left_out = {name: [block.skipped for block in blocks if block.skipped] for name, blocks in PAGES.items()}
    assert {name: len(reasons) for name, reasons in left_out.items() if reasons} == NOT_RUN
    here = Path(__file__).read_text(encoding="utf-8")
    run = {name for name, blocks in PAGES.items() if any(block.runs for block in blocks)}
    assert [name for name in run - {"tutorial"} if f'"{name}' not in here] == []


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("stu: ok: 5 rows read in 0.31 s, 9 rows/s\n  127.0.0.1:99  3 rows\n  127.0.0.1:7   2 rows\n", True),
        ("stu: ok: 6 rows read in 0.31 s, 9 rows/s\n  127.0.0.1:99  3 rows\n  127.0.0.1:7   2 rows\n", False),
        ("stu: ok: 5 rows read in 0.31 s, 9 rows/s\n  127.0.0.1:99  3 rows\n", False),
        ("stu: ok: 5 rows read in 0.31 s, 9 rows/s\n  127.0.0.1:99  3 rows\n  127.0.0.1:7   2 rows\nmore\n", False),
        ("", False),
    ],
)
def test_what_fits(printed, same):
    """Ports, times, rates and the order of servers may differ from what a page shows; all else may not."""
    shown = ("stu: ok: 5 rows read in 0.04 s, 143 rows/s", "  127.0.0.1:5  2 rows", "  127.0.0.1:6  3 rows")
    assert fits(shown, printed) is same


def test_what_is_left_out():
    """A line of `…` stands for any lines, also of servers; within a line it stands for any text."""
    assert fits(("…", "ok: … keys"), "127.0.0.1:5 1 key\nok: 16384 of 16384 slots, 9 keys\n")
    assert not fits(("…", "ok: … keys"), "127.0.0.1:5 1 key\nok: 16384 of 16384 slots\n")
