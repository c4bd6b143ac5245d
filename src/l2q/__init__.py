"""1-bit graph recommenders: L2Q-GCN and L2Q-GCN-anl, trained, quantized, packed and served."""

import os

__version__ = "0.1.0"

# Threads that spin at a barrier take the core from the thread that they wait for as soon as anything else
# runs: on a busy two-core machine an element-wise operation took 8 ms instead of .5. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
