"""Texts that are no table of fields, or one that is drawn for people."""

from __future__ import annotations

import re

RULE = re.compile(r"[ \t]*[-+=|: ]*(--|==)[-+=|: ]*")
"""A line between head and body of a table that is drawn for people."""
FOOT = re.compile(rb"(?m)^[ \t]*\(?\d+ rows?\b[^\n]*$")
"""The line below it."""


def no_table(lines: list[str]) -> str:
    """What a text is that holds something else than fields, and what to do about it; "" for what may be a table."""
    some = [line.strip() for line in lines if line.strip()][:200]

    def most(pattern: str) -> bool:
        return bool(some) and sum(re.match(pattern, line) is not None for line in some) > 0.8 * len(some)

    if (
        some
        and re.match(r"(?i)(create|insert|drop|begin|set|use|lock) .*[;(]$|--|/\*|insert into ", some[0])
        and any(re.match(r"(?i)(create table|insert into|copy) ", line) for line in some)
    ):
        return "a dump of SQL; load it into a database and give that, or export the table as CSV"
    if some and re.match(r"(?i)@relation\b", some[0]):
        return "a file of Weka; save it as CSV"
    if most(r"\S+ \S+ \S+ \[\d+/\w+/\d+:") or most(
        r"\W?\d{4}-\d\d-\d\d\W?.*\b(DEBUG|INFO|WARN|WARNING|ERROR)\b"
    ):
        return "a log for people; write its events as CSV, with a column for the user and one for the item"
    if most(r"\S+( \d+:[-+.\deE]+)+( #.*)?$"):
        return "a file of LIBSVM or LibFM, with names and values in one field; write a line for each event"
    if most(r"\w+=[^\s,;|&=]*([\s,;|&]+\w+=[^\s,;|&=]*)+$"):
        return "a log of names and values such as user=1; write the values as CSV, with their names as its header"
    if most(r'"[^"]+"$'):
        return "a table with quotes around whole lines; take them away, or the fields cannot be told"
    if most(r"[(\[].*[)\]],?$"):
        return "a list of tuples; write it as CSV, without the brackets around each line"
    return ""


def without_rules(skip: int, body: list[str]) -> tuple[int, list[str]]:
    """The lines without those that are drawn for people, as mysql, psql and Markdown have them."""
    while body and (not body[0].strip() or RULE.fullmatch(body[0])):
        skip, body = skip + 1, body[1:]
    return skip, ["" if RULE.fullmatch(line) else line for line in body]


def is_prose(rows: list[list[str]]) -> bool:
    """Whether lines are sentences or code rather than events: words without digits, which seldom come again in their
    column, and several in a field or many fields."""
    fields = [cell.strip() for row in rows for cell in row]
    words = sum(not any(sign.isdigit() for sign in field) for field in fields)
    apart = len({(column, cell) for row in rows for column, cell in enumerate(row)})
    spaces = sum(" " in field for field in fields)
    return (
        apart > 0.6 * len(fields)
        and words > 0.9 * len(fields)
        and (spaces > 0.6 * len(fields) or max(map(len, rows)) > 3)
    )
