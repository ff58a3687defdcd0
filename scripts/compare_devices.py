"""``cnn compare`` from a checkout: python scripts/compare_devices.py [--help]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cnn.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "compare")
    main()
