"""`python -m latentry`."""

from latentry.cli import main

main()
