"""The doctor command. Modules are imported inside it, so that `loader --help` stays quick."""

from functools import partial
from typing import Annotated

import typer

from loader.cli.common import chosen, say, tell
from loader.cli.options import Format, JobNames, Output, option
from loader.errors import Exit


def doctor(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    everything: Annotated[bool, option("--all", help="Also show what is right, and each job by itself.")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Check both servers and suggest fixes."""
    from loader.config.files import files_of
    from loader.config.load import load_config
    from loader.doctor.diagnose import diagnose
    from loader.doctor.findings import Level, doctor_document, worst_of
    from loader.doctor.shown import tell_findings
    from loader.jobs.expand import expand

    files = files_of(context.obj.files)
    config = expand(load_config(files)).config
    found = diagnose(config, files, chosen(config, jobs, every=not jobs))
    if output is Format.TEXT:
        screen = context.obj.screen
        worst = tell_findings(found, partial(say, screen=screen, whole=True), screen, everything=everything)
    else:
        findings = list(found)
        worst = worst_of(findings)
        tell(doctor_document(findings))
    raise typer.Exit(Exit.REJECTS if worst is Level.FAIL else Exit.OK)
