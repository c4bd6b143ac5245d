"""Where runs are compared: one interface for every logger of Lightning, and what W&B and TensorBoard do beside it."""
