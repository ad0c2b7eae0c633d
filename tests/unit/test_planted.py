"""The faults that scripts/mutants.sh plants fit the package as it is."""

from pathlib import Path

from planted import misfits


def test_the_list_fits():
    """Each piece that is to be replaced stands there once, and each test that is named is there."""
    assert misfits(Path(__file__).parents[2]) == []
