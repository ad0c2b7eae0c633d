"""The parts of jobs of many tables, on a real server: one statement a source, and sources that are away."""

from loader.config.load import Config
from loader.jobs.expand import expand
from loader.mysql.connection import Connection


def config_of(world, jobs, **sources):
    config = world.config_of({"x": {"table": "x"}})
    here = {"url": f"mysql://loader@127.0.0.1:{world.lab.mysql_port}/{world.name}", "password": world.lab.password}
    target = {"url": f"redis://loader@127.0.0.1:{world.lab.redis_ports['n1']}", "password": world.lab.redis_password}
    assert config.source
    return Config.model_validate({"version": 1, "sources": {"s1": here} | sources, "target": target, "jobs": jobs})


def test_one_statement_finds_all_tables(world, monkeypatch):
    """However many jobs, patterns and tables there are, a source is asked once."""
    for number in range(30):
        world.sql(f"CREATE TABLE t_{number} (id INT PRIMARY KEY)")
    world.sql("CREATE VIEW t_view AS SELECT * FROM t_1")
    asked = []
    fetch = Connection.fetch
    monkeypatch.setattr(
        Connection,
        "fetch",
        lambda self, sql, args=None: (
            asked.append(sql) if "information_schema.tables" in sql else 0,
            fetch(self, sql, args),
        )[1],
    )
    jobs = {"a": {"tables": ["t_1*", "t_2*"]}, "b": {"tables": "t_3", "key": "b:{table}:{pk}"}}
    expansion = expand(config_of(world, jobs))
    assert (len(asked), expansion.failures) == (1, {})
    assert len([job for job in expansion.config.jobs.values() if job.part_of == "a"]) == 22
    assert [job.name for job in expansion.config.jobs.values() if job.part_of == "b"] == ["b/t_3"]


def test_tables_of_a_source_that_is_away_stay(world):
    """A source that was there and is away keeps its parts; of one that never was, an open job is left that fails."""
    world.sql("CREATE TABLE t_1 (id INT PRIMARY KEY)")
    jobs = {"a": {"source": ["s1", "s2"], "tables": "t_*", "key": "{source}:{table}:{id}"}}
    away = {"url": "mysql://loader@127.0.0.1:9/there"}
    first = expand(config_of(world, jobs, s2=away))
    assert list(first.config.jobs) == ["a/s1/t_1", "a/s2"]
    assert list(first.failures) == ["s2"]
    gone = config_of(world, jobs, s2=away)
    gone.sources["s1"] = gone.sources["s2"]
    second = expand(gone, first.config)
    assert list(second.config.jobs) == ["a/s1/t_1", "a/s2"]
    assert list(expand(gone).config.jobs) == ["a/s1", "a/s2"]
