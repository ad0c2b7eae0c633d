"""Certificates for servers of tests: of an authority of ours, of another one, out of date, for another host."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loader.lab.process import HOST

NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED"

USE, UNUSED = [True, False, False, False, False], [False] * 3  # it signs, before and after whether it is an authority


def issue(name, directory, issuer=None, *, host=HOST, hours=1):
    """A key and a certificate for an address, by its own key or by an issuer's, as PEM files that strict clients take.

    It is valid for so many hours from now, or was until so many ago.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, by_key = issuer or (subject, key)
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(*USE, issuer is None, *UNUSED), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(by_key, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key


def tls_options(pki, authenticate="no", certificate="server"):
    """What makes a Redis listen with TLS alone."""
    files = ["--tls-cert-file", f"{certificate}.crt", "--tls-key-file", f"{certificate}.key"]
    paths = [str(pki / word) if "." in word else word for word in [*files, "--tls-ca-cert-file", "ca.crt"]]
    return ["--port", "0", "--tls-port", "{port}", *paths, "--tls-auth-clients", authenticate]
