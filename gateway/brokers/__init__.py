"""One package per kind of broker, all under the contract in `base`."""
