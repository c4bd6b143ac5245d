"""1-bit graph recommenders: L2Q-GCN and L2Q-GCN-anl, trained, quantized, packed and served."""

__version__ = "0.1.0"
