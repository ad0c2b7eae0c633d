"""The keys of a config file as models, `SourceConfig`, `TargetConfig`, `JobConfig`: what each may hold."""

import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from loader.config import cron
from loader.config.parsers import JOB_NAME, Address, KeyParts, key_parts, mysql_address, percent, redis_address, seconds
from loader.config.statement import one_statement
from loader.net import tls as certificates

CHUNK_ROWS = 50_000  # 0.2 s at 244,000 rows/s: little to repeat, and few checkpoints
MAX_CHUNK_ROWS = 10_000_000
DEADLINE = 120  # seconds: longer than any failover
MAX_SECRET_BYTES = 65_536
TOKEN_LEAST = 16  # characters of a token


def _plain(value: object) -> object:
    """The bool or the whole number that a `${…}` brought in as text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _cluster(value: object) -> object:
    value = _plain(value)
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("must be auto, true or false")
    return value


def _file(value: object) -> object:
    if not isinstance(value, str) or not Path(value).is_file():
        raise ValueError("must name a file that exists")
    return Path(value)


def _public_key(file: Path) -> Path:
    certificates.need(file, certificates.PUBLIC, "public key")
    return file


class _FileSecret(SecretStr):
    """A password in a file: as the file has it now, or had it last where it cannot be read now."""

    def __init__(self, path: Path) -> None:
        super().__init__(_read_secret(path))
        self.path = path.absolute()

    def get_secret_value(self) -> str:
        with suppress(ValueError):
            self._secret_value = _read_secret(self.path)
        return self._secret_value


def _read_secret(path: Path) -> str:
    """What the file says, without one newline at its end."""
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


def _secret(value: object) -> object:
    return _FileSecret(Path(value)) if isinstance(value, str) else value


def _with_port(listen: str) -> str:
    if int(listen.rpartition(":")[2]) > 65535:
        raise ValueError("ends in a port, from 0 to 65535")
    return listen


def _schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    """The schema of a value that is not any text, but may be a `${…}` that becomes one."""
    return WithJsonSchema({"anyOf": [*kinds, {"type": "string", "pattern": r"\$\{"}]})


Text = Annotated[str, StringConstraints(min_length=1)]
Sql = Annotated[Text, AfterValidator(one_statement)]
File = Annotated[Path, BeforeValidator(_file), WithJsonSchema({"type": "string"})]
Flag = Annotated[bool, BeforeValidator(_plain), _schema({"type": "boolean"})]
Duration = Annotated[
    int, BeforeValidator(seconds), _schema({"type": "string", "pattern": "^[0-9]+[smhdw]$", "examples": ["30s", "1d"]})
]
Percent = Annotated[
    int, BeforeValidator(percent), _schema({"type": "string", "pattern": "^[0-9]+%$", "examples": ["10%"]})
]
Rows = Annotated[
    int,
    BeforeValidator(_plain),
    Field(ge=1, le=MAX_CHUNK_ROWS),
    _schema({"type": "integer", "minimum": 1, "maximum": MAX_CHUNK_ROWS}),
]
Cluster = Annotated[Literal["auto", True, False], BeforeValidator(_cluster), _schema({"enum": ["auto", True, False]})]
Nulls = Annotated[Literal["omit", "empty"], _schema({"enum": ["omit", "empty"]})]
Name = Annotated[str, StringConstraints(pattern=JOB_NAME)]
Listen = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]*):[0-9]{1,5}$"),
    AfterValidator(_with_port),
]
HostNames = Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")], ...], Field(strict=False)]
AtOnce = Annotated[
    int,
    BeforeValidator(_plain),
    Field(ge=1, le=64),
    _schema({"type": "integer", "minimum": 1, "maximum": 64}),
]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"named twice: {', '.join(map(repr, twice))}")
    return names


FieldList = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(_distinct), Tag("[list]")]
FieldMap = Annotated[dict[Text, Text], Field(min_length=1), Tag("[map]")]
Fields = Annotated[
    FieldList | FieldMap, Discriminator(lambda fields: "[map]" if isinstance(fields, dict) else "[list]")
]


class Model(BaseModel):
    """Frozen, with no keys but its own, and text, numbers and true/false never taken for one another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class _Server(Model):
    url: Address
    password_file: Annotated[SecretStr | None, BeforeValidator(_secret)] = Field(
        default=None, description="A file that holds the password; one newline at its end is left out."
    )
    password: SecretStr | None = Field(
        default=None, validate_default=True, description="Best a ${VARIABLE}; empty means that there is none."
    )
    tls_ca: File | None = Field(
        default=None, description="The authorities to trust, a PEM file; the system's own if null."
    )
    tls_cert: File | None = Field(default=None, description="The certificate to show, a PEM file.")
    tls_key: File | None = Field(
        default=None, description="The key of tls_cert, a PEM file; in that of tls_cert itself if null."
    )
    tls_verify: Flag = Field(default=True, description="Whether to check the server's certificate and its name.")

    @field_validator("password")
    @classmethod
    def _one_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Wherever the password is given, it ends up here."""
        url = info.data.get("url")
        in_url = SecretStr(url.password) if url and url.password else None
        given = [secret for secret in (password, info.data.get("password_file"), in_url) if secret]
        if len(given) > 1:
            raise ValueError("given more than once; keep one of password, password_file and the one in the url")
        return given[0] if given else None

    @field_validator("tls_key")
    @classmethod
    def _key_with_certificate(cls, tls_key: Path | None, info: ValidationInfo) -> Path | None:
        if tls_key and info.data.get("tls_cert", ...) is None:
            raise ValueError("needs a tls_cert")
        return tls_key

    @property
    def secret(self) -> str:
        """The password as it is sent; empty where there is none. One in a file may be changed there at any time."""
        return self.password.get_secret_value() if self.password else ""

    @property
    def secret_path(self) -> Path | None:
        """The file that holds the password; None where it is given otherwise."""
        return self.password_file.path if isinstance(self.password_file, _FileSecret) else None

    @property
    def host(self) -> str:
        """A name or an address, without brackets."""
        return self.url.host

    @property
    def port(self) -> int:
        """0 for a unix socket of Redis."""
        return self.url.port

    @property
    def user(self) -> str | None:
        """The user in the url."""
        return self.url.user

    @property
    def unix_socket(self) -> str | None:
        """The path of the socket to use in place of host and port."""
        return self.url.unix_socket


def _replica(url: object) -> Address | None:
    return None if url is None else mysql_address(url)


class SourceConfig(_Server):
    """The MySQL or MariaDB server to read from."""

    url: Annotated[Address, PlainValidator(mysql_address), WithJsonSchema({"type": "string"})] = Field(
        description="mysql://user@host:3306/database, or …/database?unix_socket=/path."
    )
    replica: Annotated[Address | None, PlainValidator(_replica), WithJsonSchema({"type": ["string", "null"]})] = Field(
        default=None, description="A replica of it, by url, whose lag --max-lag watches; same password, same TLS."
    )
    tls: Flag | None = Field(
        default=None,
        validate_default=True,
        description="Whether to insist on TLS; true if null and a tls_ file is given.",
    )
    server_public_key: Annotated[File, AfterValidator(_public_key)] | None = Field(
        default=None,
        description="The server's public_key.pem, by which an account with caching_sha2_password logs in without TLS.",
    )
    allow_cleartext: Flag = Field(
        default=False,
        description="Whether to give the password to whatever server asks for it, without verified TLS too.",
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+:/-]+$")] | None = Field(
        default=None, description="The time zone TIMESTAMP columns are read in, like +00:00; the server's own if null."
    )
    connect_timeout: Duration = Field(
        default=10, description="How long connecting may take.", json_schema_extra={"default": "10s"}
    )
    read_timeout: Duration = Field(
        default=60, description="Silence for so long means a broken connection.", json_schema_extra={"default": "60s"}
    )

    @field_validator("tls")
    @classmethod
    def _tls_with_files(cls, tls: bool | None, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's signature
        has_files = any(info.data.get(name) for name in ("tls_ca", "tls_cert", "tls_key"))
        if tls is False and has_files:
            raise ValueError("is false, yet a tls_ file is given; drop one of them")
        return has_files if tls is None else tls

    @property
    def database(self) -> str:
        """The database in the url."""
        return self.url.database

    @property
    def address(self) -> str:
        """The server and the database, for people."""
        return f"{self.unix_socket or f'{self.host}:{self.port}'}/{self.database}"

    def at_replica(self) -> "SourceConfig | None":
        """The same account at the replica; None where none is configured."""
        return self.model_copy(update={"url": self.replica}) if self.replica else None


class TargetConfig(_Server):
    """The Redis or Valkey server, or any node of the cluster, to write to."""

    url: Annotated[Address, PlainValidator(redis_address), WithJsonSchema({"type": "string"})] = Field(
        description="redis://[user@]host:6379[/db], rediss:// for TLS, unix:///path[?db=0]; valkey:// is the same; of a"
        " cluster, further nodes may be named: redis://host:7001,host:7002."
    )
    cluster: Cluster = Field(default="auto", description="Whether the server is a cluster; auto asks it.")
    timeout: Duration = Field(
        default=10,
        description="No reply for so long, or no whole reply to a command beside the rows, means a broken connection;"
        " bytes that a node does not even receive mean one after 20s in any case.",
        json_schema_extra={"default": "10s"},
    )

    @field_validator("tls_ca", "tls_cert", "tls_key")
    @classmethod
    def _files_with_tls(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file and "url" in info.data and not info.data["url"].tls:
            raise ValueError("needs TLS: write rediss:// in the url")
        return file

    @field_validator("cluster")
    @classmethod
    def _cluster_has_one_database(cls, cluster: Cluster, info: ValidationInfo) -> Cluster:
        if cluster is True and "url" in info.data and info.data["url"].database != "0":
            raise ValueError("a cluster has database 0 only; drop the number from the url")
        return cluster

    @property
    def tls(self) -> bool:
        """Whether the url asks for TLS."""
        return self.url.tls

    @property
    def db(self) -> int:
        """The number of the database."""
        return int(self.url.database)


class IncrementalConfig(Model):
    """How a sync finds the rows that were changed since the one before."""

    column: Text = Field(description="A DATETIME or TIMESTAMP that MySQL sets whenever a row changes; with an index.")
    lag: Duration = Field(
        default=10,
        description="How long a transaction may take, between the time it writes into the column and its commit.",
        json_schema_extra={"default": "10s"},
    )
    force: Flag = Field(default=False, description="Whether to do without an index on the column.")


class ScheduleConfig(Model):
    """When the daemon runs a job."""

    cron: Text | None = Field(
        default=None, description="Five fields as in crontab, or @hourly, @daily, @weekly, @monthly, @yearly."
    )
    every: Duration | None = Field(default=None, validate_default=True, description="Or an interval.")
    timezone: Text = Field(default="UTC", description="The time zone of cron, like Europe/Berlin.")
    jitter: Duration | None = Field(default=None, description="Up to how much later a run begins, at random.")

    @field_validator("cron")
    @classmethod
    def _cron_comes(cls, text: str | None) -> str | None:
        if text is not None:
            cron.parse(text)
        return text

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        cron.zone(name)
        return name

    @field_validator("every")
    @classmethod
    def _cron_or_every(cls, every: int | None, info: ValidationInfo) -> int | None:
        cron = info.data.get("cron", ...)
        if cron is None and every is None:
            raise ValueError("a schedule needs a cron or an every")
        if cron is not None and every is not None:
            raise ValueError("cron and every exclude each other; keep one")
        return every


class DaemonConfig(Model):
    """How `loader daemon` runs."""

    listen: Listen | None = Field(
        default="127.0.0.1:9462", description="Where the status page and /metrics are served; nowhere if null."
    )
    hosts: HostNames = Field(
        default=(),
        description="Names that it is called by, beside addresses, localhost and this machine's own: a service's.",
    )
    jobs_at_once: AtOnce = Field(default=4, description="How many jobs may run at the same time.")
    show_values: Flag = Field(
        default=False, description="Whether its pages show keys and values of rows; else they are masked."
    )
    token_file: Annotated[SecretStr | None, BeforeValidator(_secret)] = Field(
        default=None, description="A file that holds the token; one newline at its end is left out."
    )
    token: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Who knows it may run, pause and retry jobs over HTTP, which nobody may without one; best a"
        " ${VARIABLE} of 16 characters or more.",
    )

    @field_validator("token")
    @classmethod
    def _one_token(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Wherever the token is given, it ends up here; an empty one is none."""
        in_file = info.data.get("token_file")
        given = [secret for secret in (token, in_file) if secret and secret.get_secret_value()]
        if len(given) > 1:
            raise ValueError("given more than once; keep one of token and token_file")
        if given and len(given[0].get_secret_value()) < TOKEN_LEAST:
            raise ValueError(
                f"is too easy to guess: give {TOKEN_LEAST} characters or more, as of `openssl rand -hex 16`"
            )
        return given[0] if given else None


class JobConfig(Model):
    """One table, or query, and how its rows become hashes."""

    _name: str = PrivateAttr("")
    table: Text | None = Field(default=None, description="The table to read.")
    query: Sql | None = Field(
        default=None, validate_default=True, description="A SELECT to read in place of a table; trusted SQL."
    )
    key: Text | None = Field(
        default=None,
        validate_default=True,
        description="The key of a row's hash, columns in braces: stu_{sid}; {table}_ and the primary key if null.",
    )
    fields: Fields | None = Field(
        default=None, description="The columns to write, or a map of field: column or SQL expression; all if null."
    )
    where: Sql | None = Field(default=None, description="Which rows of the table; trusted SQL.")
    nulls: Nulls = Field(default="omit", description="Whether a NULL leaves its field out or empty.")
    ttl: Duration | None = Field(default=None, description="When a key expires after its last write; never if null.")
    ttl_jitter: Percent = Field(
        default=0, description="How far the ttl of a key may be off either way.", json_schema_extra={"default": "0%"}
    )
    chunk_rows: Rows = Field(default=CHUNK_ROWS, description="How many rows are read, retried and saved as one.")
    deadline: Duration = Field(
        default=DEADLINE,
        description="How long transient failures are retried before a run gives up.",
        json_schema_extra={"default": "120s"},
    )
    incremental: IncrementalConfig | None = Field(
        default=None, description="How a sync finds what was changed; it reads everything if null."
    )
    soft_delete: Sql | None = Field(
        default=None, description="Which rows count as deleted and have no hash: deleted_at IS NOT NULL; trusted SQL."
    )
    full_every: Duration | None = Field(
        default=None,
        validate_default=True,
        description="How often an incremental sync reads everything all the same, and prunes.",
    )
    changed_only: Flag = Field(
        default=False, description="Whether a sync writes only the rows that differ from what it wrote before."
    )
    schedule: ScheduleConfig | None = Field(default=None, description="When the daemon runs the job; never if null.")
    max_age: Duration | None = Field(
        default=None, description="How old the last success may be before the job counts as late."
    )

    @field_validator("query")
    @classmethod
    def _table_or_query(cls, query: str | None, info: ValidationInfo) -> str | None:
        table = info.data.get("table", ...)
        if table is None and query is None:
            raise ValueError("a job needs a table or a query")
        if table is not None and query is not None:
            raise ValueError("table and query exclude each other; keep one")
        return query

    @field_validator("key")
    @classmethod
    def _key_template(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is None and info.data.get("query"):
            raise ValueError("a query needs a key, like stu_{sid}")
        if key is not None:
            key_parts(key)
        return key

    @field_validator("where")
    @classmethod
    def _where_of_table(cls, where: str | None, info: ValidationInfo) -> str | None:
        if where and info.data.get("query"):
            raise ValueError("belongs to a table; put it into the query")
        return where

    @field_validator("ttl_jitter")
    @classmethod
    def _jitter_of_ttl(cls, jitter: int, info: ValidationInfo) -> int:
        if jitter and info.data.get("ttl", ...) is None:
            raise ValueError("needs a ttl")
        return jitter

    @field_validator("incremental", "soft_delete")
    @classmethod
    def _of_table(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("query"):
            raise ValueError("belongs to a table, not to a query")
        return value

    @field_validator("full_every")
    @classmethod
    def _full_of_incremental(cls, every: int | None, info: ValidationInfo) -> int | None:
        if every is not None and info.data.get("incremental", ...) is None:
            raise ValueError("needs an incremental: any other sync reads everything")
        ttl = info.data.get("ttl")
        least = (ttl or 0) * (100 - info.data.get("ttl_jitter", 0)) // 100
        if ttl and info.data.get("incremental") and (every is None or every >= least):
            raise ValueError(f"has to be shorter than {least}s: a hash whose row is not changed expires with its ttl")
        return every

    @field_validator("changed_only")
    @classmethod
    def _changed_alone(cls, changed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's signature
        if changed and info.data.get("ttl") is not None:
            raise ValueError("excludes a ttl: a hash that is not written again would expire")
        if changed and info.data.get("incremental") is not None:
            raise ValueError("excludes incremental, which reads only what was changed")
        if changed and info.data.get("query"):
            raise ValueError("belongs to a table, not to a query")
        return changed

    @property
    def name(self) -> str:
        """The job's key in the file."""
        return self._name

    def take_name(self, name: str) -> None:
        """The name comes from outside, once, while the config is read."""
        self._name = name

    @cached_property
    def key_parts(self) -> KeyParts:
        """The key template taken apart; empty where the key is left to the table."""
        return key_parts(self.key) if self.key else ()

    @property
    def erases(self) -> bool:
        """Whether a sync deletes hashes by itself, whoever else has written into them."""
        return self.changed_only or bool(self.incremental and (self.where or self.soft_delete or self.full_every))

    @property
    def prefix(self) -> str:
        """What all keys of the job begin with."""
        return self.key_parts[0][0] if self.key else f"{self.table}_"
