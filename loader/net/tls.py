"""Certificates and keys of TLS: whether files contain what the config says, and the meaning of refusals."""

import ssl
from pathlib import Path
from typing import Protocol

from loader.errors import ConfigError

CERTIFICATE, KEY, PUBLIC = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----", b"-----BEGIN PUBLIC KEY-----"
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
UNTRUSTED = "see tls_ca and tls_verify"
UNSHOWN = "the server wants a certificate that it trusts: see tls_cert and tls_key"
PLAIN = "the server does not speak TLS there"


class NoTls(OSError):
    """The server answers in plaintext."""


class Files(Protocol):
    """The certificates of one side of a config, and whether to check the server's."""

    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_verify: bool


def client_context(files: Files, side: str) -> ssl.SSLContext:
    """The TLS context for one side, `source` or `target`; a `ConfigError` names the key whose file is unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = files.tls_verify
    context.verify_mode = ssl.CERT_REQUIRED if files.tls_verify else ssl.CERT_NONE
    name = "tls_ca"
    try:
        if files.tls_ca:
            _trust(files.tls_ca, context)
        else:
            context.load_default_certs()
        name = "tls_cert"
        if files.tls_cert:
            need(files.tls_cert, CERTIFICATE, "certificate")
            name = "tls_key"
            _show(files.tls_cert, files.tls_key, context)
    except ValueError as error:
        raise ConfigError(f"{side}.{name}: {getattr(files, name) or files.tls_cert} {error}") from error
    return context


def _trust(authorities: Path, context: ssl.SSLContext) -> None:
    """Trust the authorities in a PEM file; a `ValueError` says what is wrong with it."""
    need(authorities, CERTIFICATE, "certificate of an authority")
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError as error:
        raise ValueError(f"holds a certificate that cannot be read ({error.reason or error})") from None


def _show(certificate: Path, key: Path | None, context: ssl.SSLContext) -> None:
    """Use a client certificate, whose key may be in the same PEM file; a `ValueError` names a fault of the key."""
    if key:
        need(key, KEY, "key")
    elif KEY not in _read(certificate):
        raise ValueError("holds no key: name the file that does")
    try:
        context.load_cert_chain(certificate, key, _no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("is not the key of tls_cert") from None
        raise ValueError(f"cannot be used with tls_cert ({error.reason or error})") from None


def need(file: Path, mark: bytes, what: str) -> None:
    """Raise a `ValueError` if a PEM file cannot be read, or does not contain what it should."""
    if mark not in _read(file):
        raise ValueError(f"holds no {what} in PEM form")


def meaning(error: BaseException | None) -> str:
    """Advice for a handshake that failed for good; empty if it may be transient, or was no handshake error."""
    while error is not None:
        if isinstance(error, NoTls):
            return PLAIN
        if isinstance(error, ssl.SSLCertVerificationError):
            return UNTRUSTED
        if isinstance(error, ssl.SSLError):
            reason = error.reason or ""
            if "ALERT" in reason and ("CERT" in reason or reason.endswith("_CA")):
                return UNSHOWN
            if reason in NO_TLS:
                return PLAIN
        error = error.__cause__ or error.__context__
    return ""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _no_passphrase() -> str:
    """Called for an encrypted key; there is nobody to ask for the passphrase."""
    raise ValueError("is encrypted: write it without a passphrase, readable by the loader alone")
