"""Saves and loads networks: safetensors and ONNX files."""
