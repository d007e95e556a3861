"""Image-caption pairs from a stream: data that is read in its own order and never has to fit on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

from ..extras import require
from .image_views import ImageViews
from .masking import generator_for
from .pairs import PairDraws

if TYPE_CHECKING:
    import datasets

_READ_ROWS = 16  # rows taken from the stream at a time
_SAMPLE = -1  # the "pass" of `sample`: no training example has its draws


class StreamedImageTextPairs(IterableDataset):
    """Endless examples of a stream, read by every process and loader worker in shares of its own.

    There are processes x workers readers. If the stream's shards (files) divide evenly among them, each reader opens
    its own shards only; otherwise each reads everything and keeps one row in so many. A reader that comes to the end
    of its share starts its next pass by itself, in another order: shards of uneven length let no process wait for
    another. All draws depend on (seed, pass, row) only, where a row's number is its position in its reader's share
    times the number of readers, plus the reader's index: with one reader, its position in the pass.

    Rows without a caption are passed over.

    For large data: `datasets` waits five seconds at the end of every pass over several Parquet files, which small sets
    would notice.

    Args:
        rows: A stream with the columns `image` (not decoded), `captions` and `keywords` (`load_pair_stream`).
        seed: Seed of the order and of all draws.
        shuffle_buffer: Rows from which the next one is drawn, per reader; shards are shuffled as well. 0 keeps the
            stream's own order.
        keyword_probability: See [`PairDraws`].
        views: `crop_scale`, `flip` and the other options of [`ImageViews`].
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        keyword_probability: float = 0.5,
        **views: Any,
    ):
        if shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer={shuffle_buffer} is negative; 0 keeps the stream's own order.")
        self.rows = rows
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.draws = PairDraws(ImageViews(**views), keyword_probability)
        self.process, self.processes = 0, 1
        self.replayed_batches, self.batch_size = 0, 1
        self._decode: Callable[[Any], Any] = require("datasets").Image().decode_example

    def assign(self, process: int, processes: int) -> None:
        """Makes this the share of one of several processes. [`CBViLATrainer`] calls it."""
        self.process, self.processes = process, processes

    def start_after(self, batches: int, batch_size: int) -> None:
        """Makes the next iteration replay a process's first batches: their rows are read, but come out as `None`.

        So a resumed run goes on with the batch it would have had, at the cost of reading, not of decoding, what was
        seen. [`CBViLATrainer`] calls it, and [`ReplayCollator`] collates the `None`s.
        """
        self.replayed_batches, self.batch_size = batches, batch_size

    def readers_share_shards(self, workers: int) -> bool:
        """Whether each reader opens shards of its own, rather than reading everything for its part of the rows."""
        return self.rows.num_shards % (self.processes * max(1, workers)) == 0

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        worker, workers = 0, 1
        info = get_worker_info()
        if info is not None:
            worker, workers = info.id, info.num_workers
        # workers take turns, batch by batch, the first worker first
        replayed = self.batch_size * len(range(worker, self.replayed_batches, workers))
        reader, readers = self.process * workers + worker, self.processes * workers
        for count, (key, row) in enumerate(self._read(reader, readers)):
            if count < replayed:
                yield None
            else:
                yield self._example(row, key)

    def sample(self, seed: int) -> Iterator[dict[str, Any]]:
        """Examples of one pass over the whole stream in an order of its own, the same in every process."""
        for position, row in enumerate(self._pass(_SAMPLE, seed, 0, 1)):
            yield self._example(row, (seed, _SAMPLE, position))

    def _example(self, row: dict[str, Any], key: tuple[int, int, int]) -> dict[str, Any]:
        return self.draws.draw({**row, "image": self._decode(row["image"])}, generator_for(*key))

    def _read(self, reader: int, readers: int) -> Iterator[tuple[tuple[int, int, int], dict[str, Any]]]:
        """A reader's rows, pass after pass, each with the key of its draws."""
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
        """A reader's share of one pass. Its order is that of a new seed, as nothing else is shared by workers."""
        split_dataset_by_node = require("datasets.distributed").split_dataset_by_node
        rows = self.rows
        if self.shuffle_buffer:
            order = int(generator_for(seed, number).initial_seed()) & 0xFFFFFFFF
            rows = rows.shuffle(seed=order, buffer_size=self.shuffle_buffer)
        if readers > 1:
            rows = split_dataset_by_node(rows, reader, readers)
        # `iter` and not `for`: in a loader worker, `for` would split the reader's share once more
        for block in rows.iter(batch_size=_READ_ROWS):
            for image, captions, keywords in zip(block["image"], block["captions"], block["keywords"], strict=True):
                if captions:
                    yield {"image": image, "captions": captions, "keywords": keywords}


class ReplayCollator:
    """A collator that lets batches of a replayed stream pass empty.

    Args:
        collate: Collator of all other batches.
    """

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]):
        self.collate = collate

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        return {} if examples[0] is None else self.collate(examples)
