"""The reference pages and the man page say what the code says, and README's table of exit codes is the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loader.errors import Exit

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_made_from_the_code(name):
    """If it differs, `scripts/reference.sh` writes it again."""
    assert (ROOT / name).read_text(encoding="utf-8") == reference.PAGES[name]()


def test_exit_codes():
    """README has the codes and the words of the reference, which are all there are."""
    codes, texts = reference.CODES.splitlines()[::2], reference.CODES.splitlines()[1::2]
    assert {int(code) for each in codes for code in each.split(",")} == set(Exit)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for code, text in zip(codes, texts, strict=True):
        assert f"| {code} | {text} |".replace("`", "") in [line.replace("`", "") for line in lines]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff shows man pages")
def test_the_man_page_is_well_formed():
    """Groff has no warning to give."""
    command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-z", ROOT / "docs/loader.1"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
