"""The keys of a config file as models, `SourceConfig`, `TargetConfig`, `JobConfig`, with the values each allows."""

from functools import cached_property
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from loader.config import cron
from loader.config.fields import (
    AtOnce,
    Duration,
    Fields,
    Flag,
    HostNames,
    Listen,
    LostPosition,
    Model,
    Nulls,
    Percent,
    Rows,
    ServerId,
    SourceNames,
    Sql,
    Text,
    Texts,
    Write,
    followed,
    or_boolean,
    secret_of,
)
from loader.config.parsers import KeyParts, key_parts
from loader.config.parts import Origin, Pattern, check_placed_key, placed_key, table_of

NOWHERE = Origin()  # from the only source; one for all jobs, as pydantic would copy a default for each
CHUNK_ROWS = 50_000  # 0.2 s at 244,000 rows/s: little to repeat, and few checkpoints
DEADLINE = 120  # seconds: longer than any failover
TOKEN_LEAST = 16  # characters of a token


class IncrementalConfig(Model):
    """How a sync finds the rows that changed since the previous one."""

    column: Text = Field(description="An indexed DATETIME or TIMESTAMP column that MySQL sets whenever a row changes.")
    lag: Duration = Field(
        default=10,
        description="How long a transaction may take from its write into the column to its commit.",
        json_schema_extra={"default": "10s"},
    )
    force: Flag = Field(default=False, description="Whether to run without an index on the column.")


class FollowConfig(Model):
    """How a job keeps up with the binlog."""

    table: Text | None = Field(
        default=None,
        description="For a query, the table that has all columns of the key; its changes are followed.",
    )
    on_lost_position: LostPosition = Field(
        default="stop",
        description="What to do if the binlog was purged past the position: stop, or read all rows again.",
    )
    server_id: ServerId | None = Field(
        default=None,
        description="As which replica the binlog is asked for: no other server's number; default one that is made up.",
    )
    lock_reads: Flag = Field(
        default=False,
        description="Whether rows are read with LOCK IN SHARE MODE; only for a MySQL that cannot have GTIDs.",
    )


class ScheduleConfig(Model):
    """When the daemon runs a job."""

    cron: Text | None = Field(
        default=None, description="Five fields as in crontab, or @hourly, @daily, @weekly, @monthly, @yearly."
    )
    every: Duration | None = Field(default=None, validate_default=True, description="Or an interval.")
    timezone: Text = Field(default="UTC", description="The time zone of cron, like Europe/Berlin.")
    jitter: Duration | None = Field(default=None, description="Maximum random delay before a run begins.")

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
        default="127.0.0.1:9462", description="Address that serves the status page and /metrics; null serves neither."
    )
    hosts: HostNames = Field(
        default=(),
        description="More host names it may be reached by, besides localhost, IP addresses and this machine's.",
    )
    refresh: Duration = Field(
        default=60,
        description="How often the tables of jobs with `tables` are looked for.",
        json_schema_extra={"default": "1m"},
    )
    jobs_at_once: AtOnce = Field(default=4, description="How many jobs may run at the same time.")
    show_values: Flag = Field(
        default=False, description="Whether its pages show keys and values of rows; masked if false."
    )
    token_file: Annotated[SecretStr | None, BeforeValidator(secret_of)] = Field(
        default=None, description="A file that holds the token; one newline at its end is ignored."
    )
    token: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Required to run, pause or retry jobs over HTTP; unset disables these actions. Best a"
        " ${VARIABLE}, of 16 characters or more.",
    )

    @field_validator("token")
    @classmethod
    def _one_token(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """The token, from whichever key gives it; an empty one counts as none."""
        in_file = info.data.get("token_file")
        given = [secret for secret in (token, in_file) if secret and secret.get_secret_value()]
        if len(given) > 1:
            raise ValueError("given more than once; keep one of token and token_file")
        if given and len(given[0].get_secret_value()) < TOKEN_LEAST:
            raise ValueError(
                f"is too easy to guess: give {TOKEN_LEAST} characters or more, from `openssl rand -hex 16`"
            )
        return given[0] if given else None


class JobConfig(Model):
    """One table, or query, and how its rows become hashes."""

    model_config = ConfigDict(defer_build=False)  # its values are written out for each run

    _name: str = PrivateAttr("")
    _origin: Origin = PrivateAttr(default_factory=lambda: NOWHERE)
    source: SourceNames | None = Field(
        default=None, description="The name of its source in `sources`, or a list of them; not needed if there is one."
    )
    tables: Texts | None = Field(
        default=None,
        description="Patterns of tables, each of which becomes a part of the job: a glob like shop_*, over databases"
        " like school_*.student_*, or a regular expression between slashes.",
    )
    exclude: Texts = Field(default=(), description="Patterns of tables that the job leaves out.")
    table: Text | None = Field(default=None, description="The table to read; other_db.t is in another database.")
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
    where: Sql | None = Field(default=None, description="The condition that rows must satisfy; trusted SQL.")
    nulls: Nulls = Field(default="omit", description="Whether a NULL leaves its field out or empty.")
    write: Write = Field(
        default="hmset",
        description="How a hash is written: by HMSET, or ready-made, which replaces it whole for less of Redis's work;"
        " auto: ready-made if Redis takes it.",
    )
    ttl: Duration | None = Field(default=None, description="When a key expires after its last write; never if null.")
    ttl_jitter: Percent = Field(
        default=0, description="How far a key may expire before or after its ttl.", json_schema_extra={"default": "0%"}
    )
    chunk_rows: Rows = Field(default=CHUNK_ROWS, description="How many rows are read, retried and saved as one chunk.")
    deadline: Duration = Field(
        default=DEADLINE,
        description="How long transient failures are retried before a run gives up.",
        json_schema_extra={"default": "120s"},
    )
    incremental: IncrementalConfig | None = Field(
        default=None, description="How a sync finds changed rows; it reads everything if null."
    )
    soft_delete: Sql | None = Field(
        default=None, description="Such rows count as deleted and have no hash: deleted_at IS NOT NULL; trusted SQL."
    )
    full_every: Duration | None = Field(
        default=None,
        validate_default=True,
        description="How often an incremental sync reads everything and prunes.",
    )
    changed_only: Flag = Field(
        default=False, description="Whether a sync writes only the rows that differ from what it wrote before."
    )
    follow: Annotated[FollowConfig | None, BeforeValidator(followed)] = Field(
        default=None,
        description="Whether the job keeps up with the binlog: true, or a mapping of its settings.",
        json_schema_extra=or_boolean,
    )
    schedule: ScheduleConfig | None = Field(default=None, description="When the daemon runs the job; never if null.")
    max_age: Duration | None = Field(
        default=None, description="How old the last success may be before the job counts as late."
    )

    @field_validator("tables", "exclude")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if info.field_name == "tables" and patterns == ():
            raise ValueError("must not be empty")
        for text in patterns or ():
            Pattern(text).compiled()
        return patterns

    @field_validator("exclude")
    @classmethod
    def _excluded_of_tables(cls, exclude: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if exclude and info.data.get("tables", ...) is None:
            raise ValueError("belongs to tables, and there are none")
        return exclude

    @field_validator("query")
    @classmethod
    def _table_or_query(cls, query: str | None, info: ValidationInfo) -> str | None:
        table, tables = info.data.get("table", ...), info.data.get("tables", ...)
        if tables is not None:
            if tables is not ... and (table is not None or query is not None):
                raise ValueError("tables excludes table and query; keep one of them")
            return query
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
            if info.data.get("tables") or info.data.get("source"):
                check_placed_key(key)
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

    @field_validator("follow")
    @classmethod
    def _follow_a_table(cls, follow: FollowConfig | None, info: ValidationInfo) -> FollowConfig | None:
        table, query = info.data.get("table"), info.data.get("query")
        if follow and query and not follow.table:
            raise ValueError("needs the table whose rows make the keys of the query: write follow: {table: …}")
        if follow and query and follow.lock_reads:
            raise ValueError("lock_reads belongs to a table: MySQL locks no rows within a query")
        if follow and table and follow.table not in {None, table}:
            raise ValueError(f"a job follows its own table, {table}: leave out follow.table, {follow.table}")
        return follow

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
            raise ValueError("excludes incremental, which reads only changed rows")
        if changed and info.data.get("query"):
            raise ValueError("belongs to a table, not to a query")
        return changed

    @property
    def name(self) -> str:
        """The job's key in the file."""
        return self._name

    def take_name(self, name: str, origin: Origin = NOWHERE) -> None:
        """Set name and origin from outside, once, while the config is read."""
        self._name, self._origin = name, origin

    @property
    def origin(self) -> Origin:
        """From where its rows come, and which job it is a part of."""
        return self._origin

    @property
    def part_of(self) -> str:
        """The job in the file that it is a part of; empty if it is itself in the file."""
        return self._origin.part_of

    @property
    def is_open(self) -> bool:
        """Whether its tables have to be looked for before it can run."""
        return self.tables is not None

    @property
    def is_placed(self) -> bool:
        """Whether `{pk}` in its key stands for the primary key."""
        return self._origin.placed

    def placed(self, name: str, origin: Origin, *, database: str = "", **changes: object) -> Self:
        """A copy under another name, from somewhere; with a table, its key names source, `database` and table."""
        copy = self.model_copy(update=changes)
        copy.__dict__.pop("key_parts", None)  # of the key before
        copy._name, copy._origin = name, origin  # noqa: SLF001  # of its own class
        if copy.key and origin.placed and not copy.is_open:
            names = {"source": origin.source, "database": database} | ({"table": copy.table} if copy.table else {})
            copy.__dict__["key"] = placed_key(copy.key, names)
        return copy

    def at_table(self) -> tuple[str, str]:
        """Database and table as they are named; the database is empty if it is the source's."""
        return table_of(self.table or "")

    @cached_property
    def key_parts(self) -> KeyParts:
        """The parsed key template; empty if the key is left to the table."""
        return key_parts(self.key) if self.key else ()

    @property
    def erases(self) -> bool:
        """Whether a sync deletes hashes by itself, whoever else writes to them."""
        return self.changed_only or bool(self.incremental and (self.where or self.soft_delete or self.full_every))

    @property
    def prefix(self) -> str:
        """The literal text at the start of all keys of the job."""
        if self.is_open and not self.key:
            return ""
        return self.key_parts[0][0] if self.key else f"{self.table}_"
