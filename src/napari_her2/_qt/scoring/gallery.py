"""The most and the least attended tiles of each slide as thumbnails that lead to the tile."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_her2._napari.work import reading_thumbnails
from napari_her2._qt.parts.jobs import Job
from napari_her2._qt.parts.text import Label, tip
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from qtpy.QtGui import QShowEvent

    from napari_her2._napari.tile import TileLookup
    from napari_her2._qt.parts.jobs import Failure
    from napari_her2.slide.reader import Slide

_COUNT = 48  # where the model does not say how many it compares
_FIRST = 24  # read without being scrolled to
_BATCH = 6  # shown together: few enough to appear at once
_PICTURE_PX = 64


@dataclass(eq=False)
class Strip:
    """A row of tiles of one slide.

    Parameters
    ----------
    title : str
    lookup : TileLookup
        Of the result, seen from the slide.
    tiles : list of int
        Positions in the table.
    words : callable or None
        What is said of a tile at such a position, in one line; by default its rank.
    """

    title: str
    lookup: TileLookup
    tiles: list[int]
    words: Callable[[int], str] | None = None
    unread: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.unread = set(range(len(self.tiles)))

    @property
    def slide_id(self) -> str:
        """Fingerprint of the slide."""
        return self.lookup.result.slide_id

    def in_words(self, tile: int) -> str:
        """Describe a tile in one line."""
        return self.lookup.rank_words(tile) if self.words is None else self.words(tile)


def strips_of(lookups: Sequence[TileLookup]) -> list[Strip]:
    """Most and least attended tiles of each slide; as many as the model compares, where it compares any."""
    strips = []
    for lookup in lookups:
        slide = lookup.result.slides[0]
        # In a small bag no tile is both.
        count = min(slide.compared or _COUNT, max(len(slide.table) // 2, 1), len(slide.table))
        of = f"{slide.stain} · " if len(lookups) > 1 else ""
        word = lookup.ranking.adjective if lookup.ranking is not None else ""
        strips.append(Strip(f"{of}most {word}", lookup, lookup.ranked(count)))
        strips.append(Strip(f"{of}least {word}", lookup, lookup.ranked(count, least=True)))
    return [strip for strip in strips if strip.tiles]


class Gallery(QWidget):
    """Strips of thumbnails, read in a thread as they are looked at.

    Parameters
    ----------
    slide_of : callable
        Fingerprint to open slide, None where it was closed; no slide is held here.

    Attributes
    ----------
    chosen : Signal(str, int)
        Fingerprint of the slide, and position of the tile in its table.
    """

    chosen = Signal(str, int)

    def __init__(self, slide_of: Callable[[str], Slide | None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slide_of = slide_of
        self._colours = Colours()
        self.strips: list[Strip] = []
        self.lists: list[QListWidget] = []
        self._reading: tuple[int, list[int]] | None = None
        self.job = Job()
        self.job.returned.connect(self._on_read)
        self.job.failed.connect(self._on_failed)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours

    def set_strips(self, strips: Sequence[Strip]) -> None:
        """Show other tiles; nothing is read before it can be seen."""
        self.job.cancel()
        self._reading = None
        self.strips, self.lists = list(strips), []
        while (item := self._layout.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()  # it goes when the event loop comes round, and would be drawn until then
                widget.deleteLater()
        for strip in self.strips:
            title = Label(f"{strip.title} ({len(strip.tiles)})", wrap=True)
            title.setStyleSheet(f"color: {self._colours.muted};")
            self._layout.addWidget(title)
            self.lists.append(self._list(strip))
            self._layout.addWidget(self.lists[-1])
        self._read_more()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Read what is looked at now."""
        super().showEvent(event)
        self._read_more()

    def shutdown(self) -> None:
        """Stop reading."""
        self.strips, self.lists = [], []
        self._reading = None
        self.job.shutdown()

    def _list(self, strip: Strip) -> QListWidget:
        view = QListWidget()
        view.setAccessibleName(strip.title)
        view.setViewMode(QListView.ViewMode.IconMode)
        view.setFlow(QListView.Flow.LeftToRight)
        view.setMovement(QListView.Movement.Static)
        view.setWrapping(False)
        view.setUniformItemSizes(True)
        view.setSpacing(2)
        view.setIconSize(QSize(_PICTURE_PX, _PICTURE_PX))
        view.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        view.setFixedHeight(_PICTURE_PX + 8 + 2 * 4 + view.horizontalScrollBar().sizeHint().height())
        empty = _icon(None, self._colours)
        for tile in strip.tiles:
            item = QListWidgetItem(empty, "")
            item.setToolTip(tip(f"{strip.in_words(tile)}: reading …"))
            item.setSizeHint(QSize(_PICTURE_PX + 4, _PICTURE_PX + 4))
            view.addItem(item)
        view.itemClicked.connect(self._choose)
        view.itemActivated.connect(self._choose)
        view.horizontalScrollBar().valueChanged.connect(self._read_more)
        return view

    def _choose(self, item: QListWidgetItem) -> None:
        at = next((at for at, view in enumerate(self.lists) if view is item.listWidget()), None)
        if at is None:
            return
        strip = self.strips[at]
        for other in self.lists:
            if other is not self.lists[at]:
                other.clearSelection()
        self.chosen.emit(strip.slide_id, strip.tiles[self.lists[at].row(item)])

    def _read_more(self, _value: int = 0) -> None:
        """Read the next few tiles that are looked at, or will be at first."""
        if self._reading is not None or not self.isVisible():
            return
        wanted = self._wanted()
        if wanted is None:
            return
        at, places = wanted
        strip = self.strips[at]
        slide = self._slide_of(strip.slide_id)
        strip.unread.difference_update(places)
        if slide is None:
            return
        self._reading = wanted
        tiles = [strip.tiles[place] for place in places]
        self.job.start(partial(reading_thumbnails, slide, strip.lookup.result, tiles))

    def _wanted(self) -> tuple[int, list[int]] | None:
        for seen_only in (True, False):
            for at, strip in enumerate(self.strips):
                places = self._seen(at) if seen_only else range(min(_FIRST, len(strip.tiles)))
                unread = [place for place in places if place in strip.unread]
                if unread:
                    return at, unread[:_BATCH]
        return None

    def _seen(self, at: int) -> range:
        view = self.lists[at]
        step = _PICTURE_PX + 6
        first = max(view.horizontalScrollBar().value() // step, 0)
        return range(first, min(first + view.viewport().width() // step + 2, len(self.strips[at].tiles)))

    def _on_read(self, pictures: list[NDArray[np.uint8] | None]) -> None:
        if self._reading is None:
            return  # the tiles were replaced meanwhile
        at, places = self._reading
        self._reading = None
        strip = self.strips[at]
        for place, picture in zip(places, pictures, strict=True):
            item = self.lists[at].item(place)
            words = strip.in_words(strip.tiles[place])
            if picture is None:
                item.setIcon(_icon(None, self._colours, "damaged"))
                words += ": the file is damaged here"
            else:
                item.setIcon(_icon(picture, self._colours))
            item.setToolTip(tip(words))
        self._read_more()

    def _on_failed(self, failure: Failure) -> None:
        if self._reading is None:
            return
        at, places = self._reading
        self._reading = None
        for place in places:
            item = self.lists[at].item(place)
            item.setIcon(_icon(None, self._colours, "not read"))
            item.setToolTip(tip(failure.message))
        self._read_more()


def _icon(pixels: NDArray[np.uint8] | None, colours: Colours, words: str = "") -> QIcon:
    """Picture of a tile; an empty field, with words where there are none, as long as it lacks one."""
    if pixels is not None:
        whole = np.ascontiguousarray(pixels)
        height, width = whole.shape[:2]
        picture = QPixmap.fromImage(
            QImage(whole.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        )
    else:
        picture = QPixmap(_PICTURE_PX, _PICTURE_PX)
        picture.fill(QColor(colours.track))
        if words:
            painter = QPainter(picture)
            painter.setPen(QColor(colours.warning))
            painter.drawText(picture.rect(), Qt.AlignmentFlag.AlignCenter, words)
            painter.end()
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)  # Qt would tint it, and a stain has to keep its colour
    return icon
