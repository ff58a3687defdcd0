"""``cnn train`` from a checkout: python scripts/train.py [--help]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cnn.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
