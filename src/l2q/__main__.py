"""``python -m l2q``."""

import sys

from l2q.cli import main

sys.exit(main())
