"""Saves, loads, imports and exports networks: safetensors, TOML, ONNX and C code."""
