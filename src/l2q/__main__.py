"""``python -m l2q``."""

import sys
import warnings

from l2q.cli import main

warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # a line for people
sys.exit(main())
