"""``python -m cnn`` is the ``cnn`` command."""

from cnn.cli import main

main()
