"""XML of any origin as a tree: no entities, no document type, bounded in elements, depth and text.

Expat expands entities, which can be made to fill the memory, or to read other files: a file that declares any
is refused before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.outside import Reading

MOST_ELEMENTS, DEEPEST = 4_000_000, 64


class _Refused(Exception):
    """What a file holds is not taken; the text goes on from the name of the file."""


def read_xml(path: Path | str, reading: Reading) -> Element:
    """Read an XML file.

    Parameters
    ----------
    path : Path or str
    reading : Reading
        How large it may be, and what to do where it cannot be read.

    Returns
    -------
    Element
        The root.

    Raises
    ------
    Her2Error
        If it cannot be read, is no XML, or declares a document type or entities.
    """
    data = reading.raw(path)
    try:
        return _parsed(data)
    except expat.ExpatError as problem:
        words = expat.ErrorString(problem.code)
        raise reading.refusal(path, f"is damaged, or no XML ({words}, line {problem.lineno})") from problem
    except (ValueError, LookupError) as problem:  # an encoding that nobody knows
        raise reading.refusal(path, f"is no XML that can be read ({problem})") from problem
    except _Refused as problem:
        raise reading.refusal(path, str(problem)) from problem


def _parsed(data: bytes) -> Element:
    builder, depth, count = TreeBuilder(), 0, 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEEPEST:
            raise _Refused(f"is nested more than {DEEPEST} levels deep")
        if count > MOST_ELEMENTS:
            raise _Refused(f"has more than {MOST_ELEMENTS:,} elements")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise _Refused("declares a document type, which regions have no use for")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()
