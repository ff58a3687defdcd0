"""Advice in messages about data formats that are not supported."""

SAVE = 'save images and labels as x_train, y_train, x_test and y_test with numpy.savez("data.npz", ...)'
UNPACK = "unpack it and give the unpacked folder"
NEVER_OPENED = "pickles are never opened, because they can run arbitrary code"
BINARY = "--data cifar10 downloads the binary version, cifar-10-binary.tar.gz"
