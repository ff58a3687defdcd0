"""A page on this machine that shows what a trained network sees: predictions, activations, explanations."""

from cnn.demo.server import Server
from cnn.demo.viewer import Sent, Viewer

__all__ = ["Sent", "Server", "Viewer"]
