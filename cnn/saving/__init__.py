"""Networks in files: safetensors and ONNX."""
