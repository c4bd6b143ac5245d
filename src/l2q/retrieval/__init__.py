"""What ships: packed codes, exact Top-K kernels, indexes and their files."""
