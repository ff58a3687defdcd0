"""Inspection of networks: summary, memory, time per layer, gradient checks, activations, attribution."""
