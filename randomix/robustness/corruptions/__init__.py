"""The 19 corruptions of CIFAR-10-C and its relatives, batched, with randomness by counter."""
