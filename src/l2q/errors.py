"""The one exception for what a user can mend."""


class L2QError(Exception):
    """Input that cannot be used; the message is one line that names the file, line, option or value
    and says what to do. ``train.py`` and ``python -m l2q`` print it without a traceback."""
