"""`python -m loader` is `loader`."""

from loader.cli.entry import main

main()
