"""The help of commands: arguments as one types them, ranges in words, whole sentences, an example each."""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

EXAMPLES = {  # by the words of a command
    "init": "loader init --table stu --output loader.yaml",
    "check": "loader -c loader.yaml check",
    "doctor": "loader doctor --all",
    "schema": "loader schema > loader.schema.json",
    "plan": "loader plan stu",
    "sync": "loader sync stu --where 'sid > 1000'",
    "backfill": "loader backfill stu --workers 4 --rate 20000",
    "daemon": "loader -c loader.yaml daemon",
    "follow": "loader follow stu --until-caught-up",
    "verify": "loader verify stu --repair",
    "prune": "loader prune stu --dry-run",
    "get": "loader get stu 5",
    "cluster": "loader cluster -o json",
    "status": "loader status --watch",
    "runs": "loader runs stu --last 5",
    "rejects list": "loader rejects list stu --values",
    "rejects retry": "loader rejects retry stu",
    "rejects purge": "loader rejects purge stu",
    "lab up": "loader lab up --nodes 6 --replicas 1",
    "lab down": "loader lab down",
    "lab status": "loader lab status",
    "lab kill": "loader lab kill n1",
    "lab start": "loader lab start n1",
    "lab add-replica": "loader lab add-replica n1 --wipe",
}
RANGES = (
    (re.compile(r"\b(\d+)<=x<=(\d+)"), lambda found: f"{int(found[1]):,} to {int(found[2]):,}"),
    (re.compile(r"; x>=0\b|\s*\[x>=0\]"), lambda _: ""),
    (re.compile(r"\bx>=(\d+)"), lambda found: f"at least {int(found[1]):,}"),
)


def rows_of(command: Any, context: Any, kind: str) -> list[tuple[str, str]]:
    """The parameters of a command, `argument` or `option`: how they are typed, and what they are for."""
    rows = []
    for each in command.get_params(context):
        record = each.get_help_record(context) if each.param_type_name == kind else None
        if record:
            names, text = record
            for pattern, words in RANGES:
                text = pattern.sub(words, text)
            is_argument = kind == "argument"
            rows.append((each.metavar, text.replace("  [required]", "")) if is_argument else (names, text))
    return rows


class Command(TyperCommand):
    """A command whose help has an example."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line: `JOB`, `[JOB]...`."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options, and the example."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            if rows := rows_of(self, ctx, kind):
                with formatter.section(title):
                    formatter.write_dl(rows)
        words = ctx.command_path.removeprefix(str(ctx.find_root().info_name)).strip()
        if example := EXAMPLES.get(words):
            with formatter.section("Example"):
                formatter.write(f"  {example}\n")


class Group(TyperGroup):
    """A group whose list of commands has whole sentences, however narrow the terminal is."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each with the first sentence of its help."""
        commands = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        rows = [(each.name, (each.help or "").partition("\n")[0]) for each in commands if each and not each.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
