"""Counted nouns, for people."""


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 row`, `2,000 hashes`."""
    return f"{number:,} {nouns(number, noun)}"


def nouns(number: int, noun: str) -> str:
    """A noun in the form that follows a number."""
    return noun if number == 1 else f"{noun}es" if noun.endswith("h") else f"{noun}s"
