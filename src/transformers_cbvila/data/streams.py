"""Image-caption pairs from a stream, which is read in its own order and need not fit on disk."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers.utils import logging

from ..extras import require
from ..model.messages_cbvila import shown
from .bad_rows import FAULT, NAMED, TRIES, WAY_OUT, BadRowError, reason
from .image_views import ImageViews
from .images import undecoded, with_images
from .label_maps import LabelMaps
from .masking import generator_for
from .pairs import PairDraws, caption_column
from .texts import texts_in

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)

Row = dict[str, Any]
Key = tuple[int, int, int]  # of a row's draws: seed, pass, number

_COUNTERS = 256  # loader workers with a counter of bad rows of their own
_READ_ROWS = 16  # rows taken from the stream at a time
_SAMPLE = -1  # the pass of `sample`, whose draws no training example has


class StreamedImageTextPairs(IterableDataset):
    """Endless examples of a stream, of which every process and loader worker reads a share.

    There are processes x workers readers. If the stream's shards (files) divide evenly among them, each reader opens
    only its own shards; otherwise each reads everything and keeps every n-th row. A reader at the end of its share
    starts its next pass at once, in another order, so that shards of uneven length make no process wait. All draws
    depend on (seed, pass, row) only, where a row's number is its position in its reader's share times the number of
    readers, plus the reader's index: with one reader, its position in the pass.

    Rows without a caption are left out. A row whose image cannot be read, or whose caption is not a text, is an error
    that names it or, with `skip_bad_rows`, the next row that can be read takes its place. The number of examples stays
    the same, so that a resumed run, which decodes nothing of what it replays, goes on with the same draws.

    Streams are for large data: `datasets` waits five seconds at the end of every pass over several Parquet files.

    Args:
        rows: A stream with the columns `image` (not decoded), `captions` and `keywords` (`load_pair_stream`).
        seed: Seed of the order and of all draws.
        shuffle_buffer: Rows from which the next one is drawn, per reader; shards are shuffled as well. 0 keeps the
            stream's order.
        keyword_probability: See [`PairDraws`].
        skip_bad_rows: Whether other rows replace bad ones, which are counted in `bad_rows`.
        label_maps, two_views: See [`PairDraws`].
        views: `crop_scale`, `flip` and the other options of [`ImageViews`].
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        keyword_probability: float = 0.5,
        skip_bad_rows: bool = False,
        label_maps: LabelMaps | None = None,
        two_views: bool = False,
        **views: Any,
    ) -> None:
        if shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer={shuffle_buffer} is negative; 0 keeps the stream's own order.")
        self.rows = undecoded(rows)
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.draws = PairDraws(ImageViews(**views), keyword_probability, label_maps, two_views)
        self.process, self.processes = 0, 1
        self.replayed_batches, self.batch_size = 0, 1
        self.skip_bad_rows = skip_bad_rows
        self._passed_over = False  # whether the warning of a row without a caption was given
        self._found = torch.zeros(_COUNTERS, dtype=torch.long).share_memory_()  # bad rows, by loader worker

    def assign(self, process: int, processes: int) -> None:
        """Makes this the share of one of several processes; [`CBViLATrainer`] calls it."""
        self.process, self.processes = process, processes

    def start_after(self, batches: int, batch_size: int) -> None:
        """Makes the next iteration replay a process's first batches: it reads their rows, but yields `None` for them.

        A resumed run then goes on with its next batch, and reads what was seen without decoding it. [`CBViLATrainer`]
        calls it, and [`ReplayCollator`] collates the `None`s.
        """
        self.replayed_batches, self.batch_size = batches, batch_size

    def readers_share_shards(self, workers: int) -> bool:
        """Whether each reader opens only its own shards, instead of reading everything for its part of the rows."""
        return self.rows.num_shards % (self.processes * max(1, workers)) == 0

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        worker, workers = 0, 1
        info = get_worker_info()
        if info is not None:
            worker, workers = info.id, info.num_workers
        # workers take turns, batch by batch, the first worker first
        replayed = self.batch_size * len(range(worker, self.replayed_batches, workers))
        reader, readers = self.process * workers + worker, self.processes * workers
        yield from self._examples(self._read(reader, readers), replayed, worker)

    @property
    def bad_rows(self) -> int:
        """How often another row replaced one that cannot be read."""
        return int(self._found.sum())

    def summary_of_bad_rows(self) -> str:
        """Returns how many these were; a warning named the first ones of each reader."""
        return f"Another row took the place of a bad one {self.bad_rows:,} time(s), in all passes together."

    def share_bad_rows(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Adds what other processes found; `reduce` sums a tensor over processes."""
        self._found.copy_(reduce(self._found))

    def sample(self, seed: int) -> Iterator[dict[str, Any]]:
        """Yields examples of one pass over the whole stream, in an order of its own, the same in every process."""
        is_empty = True
        for position, row in enumerate(self._pass(_SAMPLE, seed, 0, 1)):
            try:
                readable = self._readable(row, (seed, _SAMPLE, position))
            except ValueError:
                if not self.skip_bad_rows:
                    raise
                continue
            is_empty = False
            yield self.draws.draw(readable, generator_for(seed, _SAMPLE, position))
        if is_empty:
            raise ValueError(
                "The stream has no row with a caption and an image that can be read. Fill them in, or name their "
                "columns as caption_column and image_column."
            )

    def _examples(self, rows: Iterator[tuple[Key, Row]], replayed: int, worker: int) -> Iterator[Any]:
        """Yields an example for each row; None, without decoding anything, for those that are replayed."""
        ahead = deque[tuple[Key, Row]]()
        for count in itertools.count():
            key, row = ahead.popleft() if ahead else next(rows)
            if count < replayed:
                yield None
                continue
            try:
                readable = self._readable(row, key)
            except ValueError as error:
                if not self.skip_bad_rows:
                    raise
                self._note(error, worker)
                readable = self._next_readable(rows, ahead, key, error)
            yield self.draws.draw(readable, generator_for(*key))

    def _readable(self, row: Row, key: Key) -> Row:
        """Returns a row with its image decoded. ValueError, which names the row, if it is bad."""
        if row.get(FAULT):
            raise BadRowError(f"{row[FAULT]}. {WAY_OUT}.")
        origin = row.get("origin") or f"The row with {shown(row['captions'][0])}"
        where = "a look ahead" if key[1] == _SAMPLE else f"pass {key[1]}"
        return with_images(row, f"{origin} (number {key[2]} of {where})")

    def _next_readable(self, rows: Iterator[tuple[Key, Row]], ahead: deque, key: Key, error: ValueError) -> Row:
        """Returns the next row that can be read in the rest of this pass and the next."""
        for place in range(TRIES):
            if place == len(ahead):
                ahead.append(next(rows))
            other, row = ahead[place]
            if other[1] > key[1] + 1:
                break
            try:
                return self._readable(row, other)
            except ValueError:
                continue
        raise ValueError(f"None of the rows from this one on can be read: {reason(error)}.") from error

    def _note(self, error: ValueError, worker: int) -> None:
        slot = worker % _COUNTERS
        self._found[slot] += 1
        if self._found[slot] <= NAMED:
            logger.warning(f"{reason(error)}. Another row takes its place.")

    def _read(self, reader: int, readers: int) -> Iterator[tuple[Key, Row]]:
        """Yields a reader's rows, pass after pass, each with the key of its draws."""
        number = 0
        while True:
            position = -1
            for position, row in enumerate(self._pass(number, self.seed, reader, readers)):
                yield (self.seed, number, position * readers + reader), row
            if position < 0:
                raise ValueError(
                    f"Reader {reader} of {readers} (processes x dataloader_num_workers) found no row with a caption: "
                    "the stream has fewer rows than readers. Use fewer, or leave streaming out."
                )
            number += 1

    def _pass(self, number: int, seed: int, reader: int, readers: int) -> Iterator[dict[str, Any]]:
        """Yields a reader's share of one pass, in an order that is seeded by the pass, the same for all workers."""
        split_dataset_by_node = require("datasets.distributed").split_dataset_by_node
        rows = self.rows
        if self.shuffle_buffer:
            order = int(generator_for(seed, number).initial_seed()) & 0xFFFFFFFF
            rows = rows.shuffle(seed=order, buffer_size=self.shuffle_buffer)
        if readers > 1:
            rows = split_dataset_by_node(rows, reader, readers)
        # `iter` and not `for`: in a loader worker, `for` would split the reader's share once more
        for block in rows.iter(batch_size=_READ_ROWS):
            column = caption_column(list(block), "The stream")
            for values in zip(*block.values(), strict=True):
                row = _with_captions(dict(zip(block, values, strict=True)), column)
                if row["captions"] or row.get(FAULT):
                    yield row
                elif not self._passed_over:
                    self._passed_over = True
                    logger.warning(f"{row.get('origin') or 'A row'} has no caption: such rows are passed over.")


def _with_captions(row: Row, column: str) -> Row:
    """Returns a row with the texts in a column as `captions`, or else with what is wrong with them as its fault."""
    try:
        return {**row, "captions": texts_in(row[column], "caption")}
    except ValueError as error:
        return {**row, "captions": [], FAULT: f"{row.get('origin') or 'A row of the stream'}: {error}"}


class ReplayCollator:
    """A collator that returns nothing for replayed batches of a stream.

    Args:
        collate: Collator of all other batches.
    """

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        """Returns the batch, or an empty one for replayed examples."""
        return {} if examples[0] is None else self.collate(examples)
