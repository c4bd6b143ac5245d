"""Number crunching: sparse products, singular vectors, packed bits, best-K lists."""
