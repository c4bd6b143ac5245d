"""1-bit graph recommenders: L2Q-GCN and L2Q-GCN-anl, trained, quantized, packed and served."""

import os

__version__ = "0.1.0"

# Settings that NumPy's BLAS and torch read when they load; who loads them before this package does without.
for name, value in {
    # Threads that spin at a barrier take the core from the thread that they wait for: on a busy two-core machine
    # an element-wise operation took 8 ms instead of .5, and a search for the best scores after a product twice as
    # long as it should, with nothing else running.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",  # spin for 2^4 cycles, the least, before sleep
    # Huge pages for torch's large tensors, as NumPy has: a product with the adjacency reads rows at random.
    "THP_MEM_ALLOC_ENABLE": "1",
}.items():
    os.environ.setdefault(name, value)
