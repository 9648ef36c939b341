"""Small files from outside, read with bounds: text, JSON, TOML and tables of any origin.

Each reader takes regular files alone (a pipe would wait for ever), up to a size, in UTF-8 or UTF-16 with or
without byte order mark, and gives plain values: nested no deeper than `MAX_DEPTH`, whole numbers of 64 bits,
decimal numbers that are finite. Whatever is not so is refused in one sentence, before it costs time or
memory.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import tomllib
import zlib
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.number_words import size_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 64
MAX_COLUMNS, MAX_ROWS = 256, 1_000_000
"""Of a table."""
MiB = 2**20
_MAX_DIGITS = 19
_MAX_WHOLE = 2**63
_MAX_DOTS = 100
_MAX_NAME = 120
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file.

    Parameters
    ----------
    columns : tuple of str
        Names in the first line.
    rows : tuple of (int, mapping)
        Line in the file and the texts by their column. What stands beyond the columns is under None; what is
        missing is None.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[Any, Any]], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How files of a kind are read: at most how large, and what is said of one that cannot be.

    Parameters
    ----------
    limit : int
        Bytes.
    advice : str
        What to do next, the end of every sentence.
    error : type
        Raised, a `Her2Error`.
    nan : bool
        Whether decimal numbers in JSON may be NaN or infinite, as in measures that could not be taken.
    """

    limit: int = 16 * MiB
    advice: str = "get it again, or write it anew"
    error: type[Her2Error] = JobFailed
    nan: bool = False

    def raw(self, path: Path | str) -> bytes:
        """Read a regular file.

        Raises
        ------
        Her2Error
            If it cannot be read, is no regular file, or is too large.
        """
        with self._opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > self.limit else file.read(self.limit + 1)
        if max(size, len(data)) > self.limit:
            raise self.refusal(path, f"is larger than {size_in_words(self.limit)}")
        return data

    def text(self, path: Path | str) -> str:
        """Read text in UTF-8 or UTF-16, with or without byte order mark."""
        return self.text_of(self.raw(path), path)

    def text_of(self, data: bytes, path: Path | str, *, gzipped: bool = False) -> str:
        """Decode the bytes of a file; ``gzipped`` allows that they are compressed."""
        if gzipped and data.startswith(_GZIP):
            data = self._unpacked(data, path)
        try:
            text = data.decode(json.detect_encoding(data))
        except UnicodeDecodeError as problem:
            raise self.refusal(path, "is no text in UTF-8 (or UTF-16)") from problem
        if "\0" in text:
            raise self.refusal(path, "is no text, it holds NUL characters")
        return text

    def json(self, path: Path | str) -> Any:  # noqa: ANN401 - JSON
        """Read JSON; see the module for what it may hold."""
        return self.parsed_json(self.text(path), path)

    def parsed_json(self, text: str, name: Path | str) -> Any:  # noqa: ANN401 - JSON
        """Parse JSON that was read; ``name`` is told where it is refused."""
        try:
            decimal = float if self.nan else _decimal
            value = json.loads(text, parse_int=_whole, parse_float=decimal, parse_constant=decimal)
            if "\\u" in text:  # half a surrogate pair is no character, and cannot be printed
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as problem:
            raise self.refusal(name, "holds half a character") from problem
        except json.JSONDecodeError as problem:
            raise self.refusal(
                name, f"is damaged, or no JSON ({problem.msg}, line {problem.lineno})"
            ) from problem
        except ValueError as problem:
            raise self.refusal(name, f"holds {problem}") from problem
        except RecursionError as problem:
            raise self.refusal(name, f"is nested more than {MAX_DEPTH} levels deep") from problem
        return self._shallow(value, name)

    def json_object(self, path: Path | str, *needed: str) -> dict[str, Any]:
        """Read JSON that is an object with the needed fields, among others."""
        value = self.json(path)
        if not isinstance(value, dict) or any(name not in value for name in needed):
            missing = next((name for name in needed if not isinstance(value, dict) or name not in value), "")
            raise self.refusal(path, f"holds no {missing}" if missing else "is no object in JSON")
        return value

    def toml(self, path: Path | str) -> dict[str, Any]:
        """Read TOML; see the module for what it may hold."""
        text = self.text(path)
        # The parser takes time in the square of the parts of a dotted name.
        for number, line in enumerate(text.splitlines(), 1):
            if line.count(".") > _MAX_DOTS:
                raise self.refusal(path, f"has more than {_MAX_DOTS} dots in line {number}")
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as problem:
            raise self.refusal(path, f"is not valid TOML ({problem})") from problem
        except ValueError as problem:  # Python refuses to read numbers of thousands of digits
            raise self.refusal(path, f"holds a number of more than {_MAX_DIGITS} digits") from problem
        except RecursionError as problem:
            raise self.refusal(path, f"is nested more than {MAX_DEPTH} levels deep") from problem
        self._shallow(values, path)
        for value in _inside(values):
            if isinstance(value, int) and abs(value) >= _MAX_WHOLE:
                raise self.refusal(path, f"holds a number of more than {_MAX_DIGITS} digits")
        return values

    def table(self, path: Path | str, separators: str = ",") -> Table:
        """Read CSV with the names of its columns in the first line.

        Of ``separators`` it is read with the one that this line holds most of: spreadsheet programs of some
        countries write semicolons.
        """
        text = self.text(path)
        first = text.partition("\n")[0]
        separator = max(separators, key=first.count)  # the earlier one where none is there
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            columns = tuple(name.strip() for name in next(reader, []))
            if len(columns) > MAX_COLUMNS:
                raise self.refusal(path, f"has more than {MAX_COLUMNS} columns")
            twice = next((name for name in columns if name and columns.count(name) > 1), None)
            if twice is not None:
                raise self.refusal(path, f"has the column {twice:.40} twice")
            rows = tuple(self._rows(reader, columns, path))
        except csv.Error as problem:
            raise self.refusal(path, f"is not a CSV file ({problem})") from problem
        return Table(columns, rows)

    def refusal(self, path: Path | str, problem: str) -> Her2Error:
        """Return the error that says what is wrong with a file."""
        return self.error(f"{shown(Path(path).name or str(path))} {problem}: {self.advice}.")

    def _rows(
        self,
        reader: Any,  # noqa: ANN401 - of csv, without a name
        columns: tuple[str, ...],
        path: Path | str,
    ) -> Iterator[tuple[int, dict[Any, Any]]]:
        count = 0
        for values in reader:
            if not values:
                continue
            count += 1
            if count > MAX_ROWS:
                raise self.refusal(path, f"has more than {MAX_ROWS:,} rows")
            row: dict[Any, Any] = dict.fromkeys(columns) | dict(zip(columns, values, strict=False))
            if len(values) > len(columns):
                row[None] = values[len(columns) :]
            yield reader.line_num, row

    def _unpacked(self, data: bytes, path: Path | str) -> bytes:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            unpacked = unpacker.decompress(data, self.limit + 1)
        except zlib.error as problem:
            raise self.refusal(path, f"is damaged ({problem})") from problem
        if len(unpacked) > self.limit:
            raise self.refusal(path, f"is larger than {size_in_words(self.limit)} when unpacked")
        if not unpacker.eof:
            raise self.refusal(path, "is cut off")
        return unpacked

    def _opened(self, path: Path | str) -> io.BufferedReader:
        try:
            file = open_without_waiting(path)
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise self.error(
                f"{shown(str(path))} could not be read ({reason}): check the path and its rights."
            ) from problem
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise self.refusal(path, "is no file")
        return file

    def _shallow(self, value: Any, name: Path | str) -> Any:  # noqa: ANN401 - JSON
        level = [value]
        for _ in range(MAX_DEPTH):
            level = [item for box in level for item in _items(box) if isinstance(item, list | dict)]
            if not level:
                return value
        raise self.refusal(name, f"is nested more than {MAX_DEPTH} levels deep")


def is_regular(path: Path | str) -> bool:
    """Whether a path leads to a regular file: no folder, pipe or device, and no name that cannot be."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def open_without_waiting(path: Path | str) -> io.BufferedReader:
    """Open whatever a path leads to, also a pipe that nobody writes to.

    Parameters
    ----------
    path : Path or str

    Raises
    ------
    OSError, ValueError
        If it cannot be opened, or is no name of a file.
    """
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))
    return os.fdopen(os.open(path, os.O_RDONLY | sum(flags)), "rb")


def expanded(path: Path | str) -> Path:
    """Return a path with ``~`` replaced by the home folder; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def shown(text: str, limit: int = _MAX_NAME) -> str:
    """Return a text of any origin as it may stand in a sentence: printable and short."""
    short = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in short)


def _items(box: Any) -> Any:  # noqa: ANN401 - JSON
    return box.values() if isinstance(box, dict) else box if isinstance(box, list) else ()


def _inside(value: Any) -> Iterator[Any]:  # noqa: ANN401 - TOML
    """All values in a nested one; it is known to be shallow."""
    for item in _items(value):
        yield item
        yield from _inside(item)


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    return int(digits)


def _decimal(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ValueError(f"{digits:.20}, which is no number")
    return value
