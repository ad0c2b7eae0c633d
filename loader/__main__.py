"""`python -m loader` is `loader`."""

from loader.cli.main import main

main()
