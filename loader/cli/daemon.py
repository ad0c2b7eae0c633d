"""The daemon command.

Modules are imported inside the commands, so that `loader --help` stays quick.
"""

import typer


def daemon(context: typer.Context) -> None:
    """Run jobs on their schedules.

    SIGTERM stops it after the running chunks; SIGHUP reloads the config.
    """
    from loader.daemon.service import Daemon

    shown = context.obj
    Daemon(shown.files, shown.log, shown.config()).run()
