"""Published data sets: downloads, and MNIST, which is included in the package."""
