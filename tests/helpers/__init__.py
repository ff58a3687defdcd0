"""What tests share: stand-ins for devices and servers, small data sets and runs, examples at random."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
