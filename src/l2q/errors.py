"""The one exception for what a user can mend."""


class L2QError(Exception):
    """Input that cannot be used; the message is one line that names the file, line, option or value
    and says what to do. ``train.py`` and ``python -m l2q`` print it without a traceback."""


def check_whole(option: str, value: object, least: int) -> None:
    """Raises L2QError where ``value`` is no whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise L2QError(f"{option}={value} must be a whole number of at least {least}")
