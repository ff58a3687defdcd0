"""What sentences say of data that are not read."""

SAVE = 'save images and labels as x_train, y_train, x_test and y_test with numpy.savez("data.npz", ...)'
UNPACK = "unpack it, and give what comes out"
NEVER_OPENED = "pickles are never opened, since they could run any program"
BINARY = "--data cifar10 downloads the binary version, cifar-10-binary.tar.gz"
