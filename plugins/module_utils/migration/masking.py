# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL and PostgreSQL's messages without the values in them: those may be anything, a patient's name or a password."""

from __future__ import annotations

import re

_LITERAL = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*|)\$ .*? \$(?P=tag)\$ )
    | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*' )
    | (?P<text> (?:\b(?:[bBxXnN]|[uU]&))?'(?:[^']|'')*' )
    | (?P<name> "(?:[^"]|"")*" )
    | (?P<width> \b(?:char|character|varchar|varying|bpchar|bit|numeric|decimal|float|timestamp|timestamptz|time|timetz
        |interval|vector)\s*\(\s*\d+\s*(?:,\s*\d+\s*)?\) )
    | (?P<number> (?<![\w$.])(?:0[xXoObB][0-9A-Fa-f_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b )
    | (?P<open> (?:\b[eE])?'.*|\$(?:[A-Za-z_]\w*|)\$.*|/\*.* )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# As PostgreSQL and SQLAlchemy quote rows and parameters inside of a line.
_ROW = re.compile(r"(Failing row contains |=)\([^\n]*?\)(?=[\s,.]|$)|\[parameters: .*?(?:\]$|\](?=\s)|$)")
_DETAIL = re.compile(r"^\s*(?:DETAIL|CONTEXT|STATEMENT|QUERY|LINE \d+|WHERE):", re.IGNORECASE)
_QUOTED = re.compile(
    r'''(?P<of>\b(?:for|type|syntax|of|value|date/time|near|enum|uuid|json)\b[^"\n]{0,60}: ?)"[^"]*"'''
)
# libpq quotes the connection string's words that it cannot read, and a URI may carry the password.
_CREDENTIAL = re.compile(r"(?i)(://[^:/\s]*:)[^@\s]+@|(password\s*[=:]\s*)\S+")


def statement(sql: str, length: int = 160) -> str:
    """One statement as it may be shown: on one line, without comments, its literals masked.

    :param length: characters after which it is cut.
    """
    text = " ".join(_LITERAL.sub(_masked, sql).split()).rstrip("; ")
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def words(sql: str, count: int = 6) -> str:
    """The first words of a statement, enough to recognise it by."""
    text = statement(sql, 400).split(" ")
    return " ".join(text[:count]) + (" ..." if len(text) > count else "")


def message(text: str, length: int = 400) -> str:
    """A message of PostgreSQL's server, client or tools: without the lines and quotations that carry values."""
    kept = [line for line in text.splitlines() if line.strip() and not _DETAIL.match(line)]
    line = " ".join(" ".join(kept).split())
    line = _ROW.sub(lambda found: f"{found[1]}(...)" if found[1] else "[parameters: ...]", line)
    line = _QUOTED.sub(lambda found: f'{found["of"]}"..."', line)
    line = _CREDENTIAL.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", line)
    line = re.sub(r"'(?:[^']|'')*'", "'...'", line)
    return line if len(line) <= length else line[: length - 3].rstrip() + "..."


def _masked(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if found["comment"]:
        return " "
    if found["name"] or found["width"]:
        return found[0]
    return "0" if kind == "number" else "'...'"
