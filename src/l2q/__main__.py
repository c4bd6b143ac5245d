"""``python -m l2q``."""

import sys
import warnings

from l2q.cli import main
from l2q.errors import printable
from l2q.retrieval.shared import share_items

warnings.formatwarning = lambda message, *_, **__: (
    f"warning: {printable(str(message))}\n"
)  # a line for people
with share_items():
    code = main()
sys.exit(code)
