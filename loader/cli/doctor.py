"""The doctor command. Modules are imported inside it, so that `loader --help` stays quick."""

import typer

from loader.cli.common import chosen, say
from loader.cli.options import Format, JobNames, Output
from loader.errors import Exit


def doctor(context: typer.Context, jobs: JobNames = None, *, output: Output = Format.TEXT) -> None:
    """Check both servers and suggest fixes."""
    from loader.config.files import files_of
    from loader.config.load import load_config
    from loader.doctor.diagnose import diagnose
    from loader.doctor.findings import Finding, Level, doctor_document, finding_text, summary_text, worst_of
    from loader.report.documents import dump

    files = files_of(context.obj.files)
    config = load_config(files)
    findings: list[Finding] = []
    for finding in diagnose(config, files, chosen(config, jobs, every=not jobs)):
        if output is Format.TEXT:
            say(finding_text(finding, findings[-1] if findings else None))
        findings.append(finding)
    say(summary_text(findings) if output is Format.TEXT else dump(doctor_document(findings)))
    raise typer.Exit(Exit.REJECTS if worst_of(findings) is Level.FAIL else Exit.OK)
