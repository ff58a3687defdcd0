"""Exports networks as C code without any library, for microcontrollers and programs in C.

``operations`` turns a network into a list of operations, ``planning`` gives their values places in one
buffer, and ``floats`` or ``int8`` writes each operation as the call of a function from this folder's C files.
"""

from cnn.saving.c_code.export import SUFFIX, Exported, calibration_images, export, header_of

__all__ = ["SUFFIX", "Exported", "calibration_images", "export", "header_of"]
