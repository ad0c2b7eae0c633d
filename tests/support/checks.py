"""Both sides compared: a load, and what verify, prune and doctor then report of it."""

from loader.jobs import prune as prune_module
from loader.jobs import verify
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.database import Ear


def loaded(world, **job):
    """A config whose job `job` has been loaded."""
    config = world.config(**job)
    run = run_job(config, config.jobs["job"], Options(), Ear())
    assert run.status == "ok", run.error
    return config


def prune(config, job, **options):
    done = prune_module.Pruned(job.name, dry_run=options.pop("dry_run", False))
    prune_module.prune(config, job, done, **options)
    return done


def check(config, **options):
    return verify.verify(config, config.jobs["job"], show=10**6, **options)


def seen(verdict):
    return {(each.key, each.kind) for each in verdict.shown}


def checkup(desk, *words):
    """The exit code, and all findings by check."""
    result = desk.run("doctor", *words, "-o", "json")
    document = result.document
    assert document["schema"] == "loader.doctor/v1"
    assert result.code == (3 if document["status"] == "fail" else 0)
    found = {}
    for each in document["checks"]:
        assert list(each) == ["check", "job", "status", "seen", "fix"]
        found.setdefault(each["check"], []).append(each)
    return result.code, found


def one(found, check):
    (finding,) = found[check]
    return finding["status"], finding["seen"], finding["fix"]
