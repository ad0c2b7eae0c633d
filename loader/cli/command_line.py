"""The words of a command line, before they are parsed or if they cannot be."""

from collections.abc import Mapping, Sequence

VALUED = frozenset({"-c", "--config", "--log-format", "--log-level"})  # options before a command that have a value
NO_DOCUMENT = frozenset({"", "daemon", "init", "schema"})  # commands without a format of the result
FLAG = ("-o", "--output")


def command_of(words: Sequence[str]) -> str:
    """The command among the words of a command line; empty if there is none, or if help on all of them is asked for."""
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            return word
        elif word == "--help" or (word[1:2] != "-" and "h" in word):
            break
    return ""


def wants_document(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether the result of a command line is to be JSON, judging by its words alone: they may be wrong."""
    if command_of(words) in NO_DOCUMENT:
        return False
    form = environment.get("LOADER_OUTPUT", "")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in FLAG:
            form = following
        elif word.startswith(("--output=", "-o")):
            form = word.removeprefix("--output=").removeprefix("-o")
    return form.lower() == "json"


def resuming(words: Sequence[str]) -> str:
    """The command that goes on with the work of a command line, to paste into a shell."""
    from shlex import join

    return join(["loader", *(word for word in words if word != "--restart")])
