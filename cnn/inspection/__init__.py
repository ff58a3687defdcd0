"""Inspection of networks: summary, memory, time per layer, and gradient checks."""
