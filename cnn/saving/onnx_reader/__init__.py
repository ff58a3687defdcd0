"""Reads ONNX files.

``graph`` knows the constants and the shapes, ``operators`` has the layers of each operator, ``parts`` puts
them together, and ``reader`` follows the graph through its branches.
"""

from cnn.saving.onnx_reader.reader import read

__all__ = ["read"]
