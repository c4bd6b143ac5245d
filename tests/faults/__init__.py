"""Faults that are injected for real: ``make faults``. A kind of fault is a module; ``frame`` is what they share."""

import l2q  # noqa: F401  before NumPy and torch, which read when they load what it sets
