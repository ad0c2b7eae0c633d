"""A shell script parsed into the commands that it would run, without running anything. Pure.

A word is its text as the program gets it, with the script's line number of each character. Variables set to plain text
before are filled in; anything that the script computes is a `HOLE`.
"""

import re
from collections.abc import Sequence
from dataclasses import field

from loader.records import dataclass

HOLE = "\0"  # only known when the script runs; a script cannot contain it otherwise
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=", re.ASCII)
ADDITION = re.compile(r"([A-Za-z_]\w*)\+=", re.ASCII)
OPENS, CLOSES = {"if", "for", "while", "until", "case", "select"}, {"fi", "done", "esac"}
KEYWORDS = OPENS | CLOSES | {"then", "do", "else", "elif", "in", "{", "}", "!", "time", "function"}
SETS = {"for", "select", "read", "printf", "unset", "mapfile", "getopts"}  # variables, by commands
DECLARES = {"export", "local", "readonly", "declare", "typeset"}
ANSI = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "e": "\x1b"}


@dataclass(frozen=True, slots=True)
class Text:
    """Characters, and the script's line number of each."""

    text: str = ""
    lines: tuple[int, ...] = ()

    def part(self, start: int, end: int | None = None) -> "Text":
        """A part of it."""
        return Text(self.text[start:end], self.lines[start:end])

    @property
    def line(self) -> int:
        """Its first line."""
        return self.lines[0] if self.lines else 1


def script_text(text: str) -> Text:
    """A whole script, its lines counted from 1."""
    lines, number = [], 1
    for sign in text:
        lines.append(number)
        number += sign == "\n"
    return Text(text, tuple(lines))


@dataclass(slots=True)
class Command:
    """The words of one command, the here-document or here-string it gets, and the file it reads."""

    words: list[Text] = field(default_factory=list)
    stdin: Text | None = None
    reads: Text | None = None
    before: "Command | None" = None  # the command whose output it reads

    @property
    def input(self) -> Text | None:
        """Its standard input, if the script has it: a here-document, or the output of `echo` and `cat`."""
        if self.stdin is not None or self.before is None or not self.before.words:
            return self.stdin
        name, *said = self.before.words
        if name.text == "cat" and not said:
            return self.before.input
        said = [word for word in said if word.text not in {"-n", "-e"}]
        if name.text != "echo" or not said:
            return None
        lines = [line for word in said for line in (*word.lines, word.line)]
        return Text(" ".join(word.text for word in said), tuple(lines[:-1]))


@dataclass(slots=True)
class _Open:
    """A here-document that begins on the next line."""

    command: Command
    end: str
    literal: bool
    indented: bool


@dataclass(slots=True)
class Shell:
    """Reads the commands in a text, one after the other; those inside `$(…)` come before the command around them."""

    source: Text
    variables: dict[str, Text] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    place: int = 0
    depth: int = 0
    braces: int = 0  # functions and groups around
    _maybe: bool = False  # the command depends on whether another succeeded
    _command: Command = field(default_factory=Command)
    _signs: list[str] = field(default_factory=list)
    _lines: list[int] = field(default_factory=list)
    _begun: bool = False
    _literal: bool = False  # the word contained a quote
    _redirect: str = ""
    _feeder: Command | None = None
    _here: list[_Open] = field(default_factory=list)

    def read(self, until: str = "") -> list[Command]:
        """All commands up to the end, or up to an unmatched closing bracket."""
        while self.place < len(self.source.text):
            sign = self._sign()
            if until and sign == until:
                break
            if sign in "'\"\\$`":
                self._quoted(sign)
            elif sign in " \t\r":
                self._end_word()
            elif sign == "#" and not self._begun:
                end = self.source.text.find("\n", self.place)
                self.place = len(self.source.text) if end < 0 else end - 1
            elif sign in "\n;&|()":
                self._separator(sign)
            elif sign in "<>":
                self._redirection(sign)
                continue
            else:
                self._add(sign)
            self.place += 1
        self._end_command()
        return self.commands

    def _sign(self, ahead: int = 0) -> str:
        at = self.place + ahead
        return self.source.text[at] if at < len(self.source.text) else ""

    def _add(self, signs: str, lines: Sequence[int] | None = None) -> None:
        self._begun = True
        self._signs += signs
        at = self.source.lines[min(self.place, len(self.source.lines) - 1)]
        self._lines += lines if lines is not None else [at] * len(signs)

    def _separator(self, sign: str) -> None:
        feeds = sign == "|" and self._sign(1) != "|"
        either = sign in "&|" and self._sign(1) == sign
        if either:
            self.place += 1
        self._end_command(feeds=feeds)
        self._maybe = either
        if sign == "\n" and self._here:
            self.place += 1
            for here in self._here:
                self._here_document(here)
            self._here.clear()
            self.place -= 1

    def _redirection(self, sign: str) -> None:
        if "".join(self._signs).isdigit():
            self._signs.clear()
            self._lines.clear()
            self._begun = False
        self._end_word()
        match = re.compile(r"<<<|<<-?|<&|<|>>|>&|>\||>").match(self.source.text, self.place)
        assert match is not None
        self._redirect = match[0] if sign == "<" else ">"
        self.place = match.end()

    def _quoted(self, sign: str) -> None:
        if sign == "\\":
            self.place += 1
            if self._sign() not in {"\n", ""}:
                self._literal = True
                self._add(self._sign())
        elif sign == "'":
            self._literal = True
            end = self.source.text.find("'", self.place + 1)
            end = len(self.source.text) if end < 0 else end
            inner = self.source.part(self.place + 1, end)
            self._add(inner.text, inner.lines)
            self.place = end
        elif sign == '"':
            self._literal = True
            self._begun = True
            self.place += 1
            self._expand('"')
        elif sign == "$" and self._sign(1) == "'":
            self._ansi()
        else:
            self._dollar(split=not (ASSIGNMENT.match("".join(self._signs)) and not self._command.words))

    def _expand(self, end: str) -> None:
        """The text in double quotes, or in a here-document (no end), with `$` and a few backslashes resolved."""
        while (sign := self._sign()) and sign != end:
            if sign == "\\" and self._sign(1) in {"$", "`", '"' if end else "\\", "\\", "\n"}:
                self.place += 1
                if self._sign() != "\n":
                    self._add(self._sign())
            elif sign in "$`":
                self._dollar()
            else:
                self._add(sign)
            self.place += 1

    def _ansi(self) -> None:
        self._begun = self._literal = True
        self.place += 2
        while (sign := self._sign()) and sign != "'":
            if sign == "\\":
                self.place += 1
                sign = ANSI.get(self._sign(), "\\" + self._sign())
            self._add(sign)
            self.place += 1

    def _dollar(self, *, split: bool = False) -> None:
        """A variable, split into words if asked, or the output of commands, which are read too."""
        if self._sign() == "`":
            end = self.place + 1
            while end < len(self.source.text) and self.source.text[end] != "`":
                end += 2 if self.source.text[end] == "\\" else 1
            inner = self.source.part(self.place + 1, end)
            kept = [
                at
                for at, sign in enumerate(inner.text)
                if sign != "\\" or inner.text[at + 1 : at + 2] not in {"`", "\\", "$"}
            ]
            text = Text("".join(inner.text[at] for at in kept), tuple(inner.lines[at] for at in kept))
            Shell(text, self.variables, self.commands).read()
            self._add(HOLE)
            self.place = end
        elif self.source.text.startswith("$((", self.place):
            end = self.source.text.find("))", self.place)
            self._add(HOLE)
            self.place = len(self.source.text) if end < 0 else end + 1
        elif self._sign(1) == "(":
            within = Shell(self.source, self.variables, self.commands, self.place + 2)
            within.read(")")
            self._add(HOLE)
            self.place = within.place
        elif match := re.compile(r"\$(?:\{(\w+)\}|(\w+)|\{[^}]*\}|[@*#?$!-])", re.ASCII).match(
            self.source.text, self.place
        ):
            value = Text(HOLE, self.source.lines[self.place :][:1])
            if not self._changes(name := match[1] or match[2] or ""):
                value = self.variables.get(name, value)
            for sign, line in zip(value.text, value.lines, strict=True):
                if split and sign in " \t\n":
                    self._end_word()
                else:
                    self._add(sign, [line])
            self._begun = self._begun or not split
            self.place = match.end() - 1
        else:
            self._add("$")

    def _changes(self, name: str) -> bool:
        """Whether a variable that a function uses may change before the function is called."""
        return self.braces > 0 and len(re.findall(rf"\b{name}\+?=", self.source.text)) > 1

    def _here_document(self, here: _Open) -> None:
        start, at = self.place, self.place
        kept: list[int] = []
        while at < len(self.source.text):
            end = self.source.text.find("\n", at)
            end = len(self.source.text) if end < 0 else end
            line_at = at
            while here.indented and self.source.text[line_at : line_at + 1] == "\t":
                line_at += 1
            self.place = min(end + 1, len(self.source.text))
            if self.source.text[line_at:end] == here.end:
                break
            kept += range(line_at, min(end + 1, len(self.source.text)))
            at = end + 1
        body = Text("".join(self.source.text[each] for each in kept), tuple(self.source.lines[each] for each in kept))
        if not here.literal and body.text:
            inner = Shell(body, self.variables, self.commands)
            inner._expand("")
            body = Text("".join(inner._signs), tuple(inner._lines))
        here.command.stdin = body if body.text else Text("", self.source.lines[start : start + 1])

    def _end_word(self) -> None:
        if not self._begun:
            return
        word, literal = Text("".join(self._signs), tuple(self._lines)), self._literal
        self._signs.clear()
        self._lines.clear()
        self._begun = self._literal = False
        redirect, self._redirect = self._redirect, ""
        if redirect == "<<<":
            self._command.stdin = word
        elif redirect in {"<<", "<<-"}:
            self._here.append(_Open(self._command, word.text, literal, redirect == "<<-"))
        elif redirect == "<":
            self._command.reads = word
        elif not redirect:
            self._word(word, literal=literal)

    def _word(self, word: Text, *, literal: bool) -> None:
        words = self._command.words
        if not words and not literal and word.text in KEYWORDS:
            self.depth += (word.text in OPENS) - (word.text in CLOSES)
            self.braces += (word.text == "{") - (word.text == "}")
            if word.text in {"for", "select", "case"}:
                words.append(word)
            return
        assignment = ASSIGNMENT.match(word.text)
        if assignment and (not words or words[0].text in DECLARES):
            value = word.part(assignment.end())
            known = self.depth <= 0 and self.braces <= 0 and not self._maybe and HOLE not in value.text
            if known:
                self.variables[assignment[1]] = value
            else:
                self.variables.pop(assignment[1], None)
            return
        if (added := ADDITION.match(word.text)) and not words:
            self.variables.pop(added[1], None)
            return
        words.append(word)

    def _end_command(self, *, feeds: bool = False) -> None:
        self._end_word()
        self._redirect = ""
        command, self._command = self._command, Command()
        if command.words and command.words[0].text in SETS:
            for word in command.words[1:]:
                self.variables.pop(word.text, None)
        if command.words or command.stdin:
            command.before, self._feeder = self._feeder, command if feeds else None
            self.commands.append(command)
