"""The two servers of a config: `SourceConfig` and `TargetConfig`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from loader.config.fields import (
    Cluster,
    Duration,
    File,
    FileSecret,
    Flag,
    HostPort,
    Model,
    public_key,
    secret_of,
)
from loader.config.parsers import Address, host_port, mysql_address, redis_address

ANSWER_TIME = 2  # seconds that a server has to answer if somebody waits for what it says, not for a run


class ServerConfig(Model):
    """Settings of both servers: address, account, and TLS."""

    url: Address
    password_file: Annotated[SecretStr | None, BeforeValidator(secret_of)] = Field(
        default=None, description="A file that holds the password; one newline at its end is ignored."
    )
    password: SecretStr | None = Field(
        default=None, validate_default=True, description="Best a ${VARIABLE}; empty means no password."
    )
    tls_ca: File | None = Field(
        default=None, description="A PEM file of the authorities to trust; the system's own if null."
    )
    tls_cert: File | None = Field(default=None, description="The client certificate, a PEM file.")
    tls_key: File | None = Field(
        default=None, description="The key of tls_cert, a PEM file; null if tls_cert contains it."
    )
    tls_verify: Flag = Field(default=True, description="Whether to check the server's certificate and its name.")

    @field_validator("password")
    @classmethod
    def _one_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """The password, from whichever key gives it."""
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
        """The password to send; empty if there is none. One in a file may be changed at any time."""
        return self.password.get_secret_value() if self.password else ""

    @property
    def secret_path(self) -> Path | None:
        """The file that holds the password; None if it is given in another way."""
        return self.password_file.path if isinstance(self.password_file, FileSecret) else None

    @property
    def host(self) -> str:
        """A host name or an IP address, without brackets."""
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
        """The path of the socket to use instead of host and port."""
        return self.url.unix_socket

    @property
    def endpoint(self) -> str:
        """The path of the socket, or host and port, for people."""
        return self.unix_socket or f"{self.host}:{self.port}"


def _replica(url: object) -> Address | None:
    return None if url is None else mysql_address(url)


class SourceConfig(ServerConfig):
    """The MySQL or MariaDB server to read from."""

    url: Annotated[Address, PlainValidator(mysql_address), WithJsonSchema({"type": "string"})] = Field(
        description="mysql://user@host:3306/database, or …/database?unix_socket=/path."
    )
    replica: Annotated[Address | None, PlainValidator(_replica), WithJsonSchema({"type": ["string", "null"]})] = Field(
        default=None, description="The url of a replica whose lag --max-lag watches; same password, same TLS."
    )
    tls: Flag | None = Field(
        default=None,
        validate_default=True,
        description="Whether to insist on TLS; true if null and a tls_ file is given.",
    )
    server_public_key: Annotated[File, AfterValidator(public_key)] | None = Field(
        default=None,
        description="The server's public_key.pem, to log in without TLS to an account with caching_sha2_password.",
    )
    allow_cleartext: Flag = Field(
        default=False,
        description="Whether to send the password to any server that asks for it, even without verified TLS.",
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+:/-]+$")] | None = Field(
        default=None, description="The time zone TIMESTAMP columns are read in, like +00:00; the server's own if null."
    )
    connect_timeout: Duration = Field(
        default=10, description="How long connecting may take.", json_schema_extra={"default": "10s"}
    )
    read_timeout: Duration = Field(
        default=60, description="This much silence means a broken connection.", json_schema_extra={"default": "60s"}
    )

    @field_validator("tls")
    @classmethod
    def _tls_with_files(cls, tls: bool | None, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's signature
        has_files = any(info.data.get(name) for name in ("tls_ca", "tls_cert", "tls_key"))
        if tls is False and has_files:
            raise ValueError("is false, but a tls_ file is given; drop one of them")
        return has_files if tls is None else tls

    @property
    def database(self) -> str:
        """The database in the url."""
        return self.url.database

    @property
    def address(self) -> str:
        """The server and the database, for people."""
        return f"{self.endpoint}/{self.database}"

    def at_database(self, database: str) -> Self:
        """The same server and account, with another database."""
        return self.model_copy(update={"url": replace(self.url, database=database)})

    def at_replica(self) -> "SourceConfig | None":
        """The same account at the replica; None if none is configured."""
        return self.model_copy(update={"url": self.replica}) if self.replica else None


class TargetConfig(ServerConfig):
    """The Redis or Valkey server, or any node of the cluster, to write to."""

    url: Annotated[Address, PlainValidator(redis_address), WithJsonSchema({"type": "string"})] = Field(
        description="redis://[user@]host:6379[/db], rediss:// for TLS, unix:///path[?db=0]; valkey:// is the same; a"
        " cluster may have more nodes listed: redis://host:7001,host:7002."
    )
    cluster: Cluster = Field(default="auto", description="Whether the server is a cluster; auto asks it.")
    addresses: dict[HostPort, HostPort] = Field(
        default_factory=dict,
        description="Where nodes are reached whose announced address works elsewhere only, behind NAT or published"
        ' ports: {"10.0.0.11:6379": "localhost:7001"}.',
    )
    timeout: Duration = Field(
        default=10,
        description="A connection counts as broken without a reply for this long, or without a complete reply to"
        " any command but those of rows; in any case 20s after bytes that a node does not acknowledge.",
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

    def __hash__(self) -> int:
        """Of what tells servers apart: pydantic cannot hash a mapping."""
        return hash((self.url, self.timeout))

    def reached_at(self, host: str, port: int) -> tuple[str, int]:
        """The host and the port to dial for an announced or configured address."""
        dialled = {host_port(announced): host_port(reached) for announced, reached in self.addresses.items()}
        return dialled.get((host.lower(), port), (host, port))

    def within(self, seconds: int = ANSWER_TIME) -> Self:
        """The same server with at most so many seconds to answer, for somebody who waits for it."""
        return self.model_copy(update={"timeout": min(seconds, self.timeout)})

    @property
    def tls(self) -> bool:
        """Whether the url asks for TLS."""
        return self.url.tls

    @property
    def db(self) -> int:
        """The number of the database."""
        return int(self.url.database)
