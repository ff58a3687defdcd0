"""Published data sets: where they are downloaded from, and the part of MNIST that comes with the package."""
