"""An index as a service over HTTP that reads and never writes: ``python -m l2q serve``."""
