"""One thread an operation, before torch is imported: equal sums on every machine, and processes that can be forked."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
