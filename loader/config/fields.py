"""The types of values in a config file: how each is read and checked, and its JSON schema."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from loader.config.parsers import JOB_NAME, host_port, percent, seconds
from loader.config.statement import one_statement
from loader.net import tls as certificates

MAX_CHUNK_ROWS = 10_000_000
MAX_SECRET_BYTES = 65_536


def plain(value: object) -> object:
    """The bool or the whole number in the text that a `${…}` produced."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def cluster_of(value: object) -> object:
    """A value of `target.cluster`."""
    value = plain(value)
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("must be auto, true or false")
    return value


def _file(value: object) -> object:
    if not isinstance(value, str) or not Path(value).is_file():
        raise ValueError("must name a file that exists")
    return Path(value)


def public_key(file: Path) -> Path:
    """A file that holds a public key."""
    certificates.need(file, certificates.PUBLIC, "public key")
    return file


class FileSecret(SecretStr):
    """A password in a file: its current content, or the last one if it cannot be read now."""

    def __init__(self, path: Path) -> None:
        super().__init__(_read_secret(path))
        self.path = path.absolute()

    def get_secret_value(self) -> str:
        """The current password in the file."""
        with suppress(ValueError):
            self._secret_value = _read_secret(self.path)
        return self._secret_value

    def __eq__(self, other: object) -> bool:
        """Whether it is the same file: settings are compared for each table, and the file need not be read for that."""
        return isinstance(other, FileSecret) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


def _read_secret(path: Path) -> str:
    """The file's content, without one newline at its end."""
    try:
        with path.open("rb") as stream:
            secret = stream.read(MAX_SECRET_BYTES + 1).decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not 1 <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError("the file is empty, or too large for a password")
    return secret


def secret_of(value: object) -> object:
    """The password in a named file."""
    return FileSecret(Path(value)) if isinstance(value, str) else value


def followed(value: object) -> object:
    """The settings that a plain true or false stands for."""
    value = plain(value)
    return ({} if value else None) if isinstance(value, bool) else value


def or_boolean(schema: dict[str, Any]) -> None:
    """Add true and false to the schema of a value that has settings, and false as its default."""
    schema["anyOf"] = [{"type": "boolean"}, *schema["anyOf"]]
    schema["default"] = False


def _with_port(listen: str) -> str:
    if int(listen.rpartition(":")[2]) > 65535:
        raise ValueError("ends in a port, from 0 to 65535")
    return listen


def _with_host(address: str) -> str:
    host_port(address)
    return address


def schema_of(*kinds: dict[str, Any]) -> WithJsonSchema:
    """The schema of a value that is not any text, but may be a `${…}` that becomes one."""
    return WithJsonSchema({"anyOf": [*kinds, {"type": "string", "pattern": r"\$\{"}]})


Text = Annotated[str, StringConstraints(min_length=1)]
Sql = Annotated[Text, AfterValidator(one_statement)]
File = Annotated[Path, BeforeValidator(_file), WithJsonSchema({"type": "string"})]
Flag = Annotated[bool, BeforeValidator(plain), schema_of({"type": "boolean"})]
Duration = Annotated[
    int,
    BeforeValidator(seconds),
    schema_of({"type": "string", "pattern": "^[0-9]+[smhdw]$", "examples": ["30s", "1d"]}),
]
Percent = Annotated[
    int, BeforeValidator(percent), schema_of({"type": "string", "pattern": "^[0-9]+%$", "examples": ["10%"]})
]
ServerId = Annotated[
    int,
    BeforeValidator(plain),
    Field(ge=1, le=2**32 - 1),
    schema_of({"type": "integer", "minimum": 1, "maximum": 2**32 - 1}),
]
Rows = Annotated[
    int,
    BeforeValidator(plain),
    Field(ge=1, le=MAX_CHUNK_ROWS),
    schema_of({"type": "integer", "minimum": 1, "maximum": MAX_CHUNK_ROWS}),
]
Cluster = Annotated[
    Literal["auto", True, False], BeforeValidator(cluster_of), schema_of({"enum": ["auto", True, False]})
]
Nulls = Annotated[Literal["omit", "empty"], schema_of({"enum": ["omit", "empty"]})]
Write = Annotated[Literal["hmset", "restore", "auto"], schema_of({"enum": ["hmset", "restore", "auto"]})]
LostPosition = Annotated[Literal["stop", "backfill"], schema_of({"enum": ["stop", "backfill"]})]
Name = Annotated[str, StringConstraints(pattern=JOB_NAME)]
Listen = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]*):[0-9]{1,5}$"),
    AfterValidator(_with_port),
]
HostPort = Annotated[str, AfterValidator(_with_host)]
HostNames = Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")], ...], Field(strict=False)]
AtOnce = Annotated[
    int,
    BeforeValidator(plain),
    Field(ge=1, le=64),
    schema_of({"type": "integer", "minimum": 1, "maximum": 64}),
]


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _names_of(value: object) -> object:
    """One name, or several in a tuple."""
    if isinstance(value, list) and value and all(isinstance(each, str) and each for each in value):
        return _distinct(tuple(value))
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError("must be the name of a source, or a list of names")
    return value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"named twice: {', '.join(map(repr, twice))}")
    return names


ONE_OR_LIST: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ]
}
SourceNames = Annotated[str | tuple[str, ...], BeforeValidator(_names_of), WithJsonSchema(ONE_OR_LIST)]
Texts = Annotated[tuple[Text, ...], Field(strict=False), BeforeValidator(_listed), WithJsonSchema(ONE_OR_LIST)]
FieldList = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(_distinct), Tag("[list]")]
FieldMap = Annotated[dict[Text, Text], Field(min_length=1), Tag("[map]")]
Fields = Annotated[
    FieldList | FieldMap, Discriminator(lambda fields: "[map]" if isinstance(fields, dict) else "[list]")
]


class Model(BaseModel):
    """Frozen, without unknown keys, and strict: text, numbers and true/false are never converted into one another.

    Models are built with the one that contains them, once: that takes half the time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True)
