"""PyMySQL and `cryptography`, in a process of its own: others may have imported it here."""

import subprocess
import sys

CODE = """
import sys
from loader.mysql.driver import _auth
assert "cryptography" not in sys.modules
from cryptography.hazmat.primitives import serialization as s, hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
for _ in range(2):
    print(key.decrypt(_auth.sha2_rsa_encrypt(b"secret", bytes(20), public), oaep))
"""


def test_a_password_under_a_key_of_the_server():
    """The library that encrypts it is imported then, and not before."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([r"b'secret\x00'"] * 2, "")
