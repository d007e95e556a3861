"""Streams: rows per reader, draws that do not depend on the reader, and replays."""

import io
from itertools import islice

import datasets
import pytest
import torch
from PIL import Image
from tiny import tiny_rows
from torch.utils.data import DataLoader

from transformers_cbvila.data import streams
from transformers_cbvila.data.mixing import interleave
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.streams import ReplayCollator, StreamedImageTextPairs


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def numbered(index):
    row = tiny_rows(16)[index % 16]
    return {**row, "image": encoded(row["image"]), "captions": [str(index)]}


def rows_of(shards):
    """A stream of shards, each a list of row numbers; a row's caption is its number."""
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(image=datasets.Image(decode=False), captions=texts, keywords=texts)

    def read(shards):
        for shard in shards:
            for index in shard:
                yield numbered(index)

    return datasets.IterableDataset.from_generator(read, features=features, gen_kwargs={"shards": list(shards)})


def stream(shards=(range(12),), process=0, processes=1, **options):
    pairs = StreamedImageTextPairs(rows_of(shards), **({"keyword_probability": 0.0} | options))
    pairs.assign(process, processes)
    return pairs


def texts(examples, count):
    return [int(example["text"]) for example in islice(examples, count)]


def batches(pairs, count, workers=0, batch_size=2):
    loader = DataLoader(
        pairs,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=ReplayCollator(lambda examples: {"text": [int(example["text"]) for example in examples]}),
    )
    return [batch.get("text") for batch in islice(loader, count)]


UNEVEN = (range(0, 7), range(7, 9), range(9, 12), range(12, 13))


def test_stream_without_shuffle_buffer_equals_the_listed_pairs():
    pairs = stream(shuffle_buffer=0, seed=3, crop_scale=0.5, flip=True)
    rows = [{**numbered(i), "image": tiny_rows(16)[i]["image"]} for i in range(12)]
    listed = ImageTextPairs(rows, seed=3, crop_scale=0.5, flip=True, keyword_probability=0.0)
    for position, example in enumerate(islice(pairs, 12)):
        expected = listed[position]
        assert example["text"] == expected["text"] and example["image_id"] == expected["image_id"]
        assert example["image"].tobytes() == expected["image"].tobytes()
        assert torch.equal(example["generator"].get_state(), expected["generator"].get_state())


def test_stream_passes_differ_in_order_and_draws():
    pairs = stream(shuffle_buffer=6, crop_scale=0.5)
    examples = list(islice(pairs, 36))
    passes = [[int(e["text"]) for e in examples[start : start + 12]] for start in (0, 12, 24)]
    assert all(sorted(order) == list(range(12)) for order in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0] and passes[0] != sorted(passes[0])
    views = [{int(e["text"]): e["image"].size for e in examples[start : start + 12]} for start in (0, 12)]
    assert views[0] != views[1]
    assert texts(pairs, 36) == sum(passes, []), "again from the start"
    assert texts(stream(shuffle_buffer=6, seed=1), 12) != passes[0]


@pytest.mark.parametrize("shards", [UNEVEN, (range(13),)], ids=["shards", "rows"])
@pytest.mark.parametrize("processes, workers", [(2, 0), (1, 2), (2, 2)])
def test_stream_readers_share_rows_without_overlap(shards, processes, workers):
    """In the first pass nothing is read twice, whether shards or rows are shared out, and no reader ever ends."""
    seen, keys = [], []
    for process in range(processes):
        readers = max(1, workers)
        for worker in range(readers):
            pairs = stream(shards, process, processes, shuffle_buffer=4)
            reader = process * readers + worker
            share = list(pairs._pass(0, 0, reader, processes * readers))
            seen += [int(row["captions"][0]) for row in share]
            keys += [key for key, _ in islice(pairs._read(reader, processes * readers), 20)]
    assert sorted(seen) == list(range(13))
    assert len(set(keys)) == 20 * processes * max(1, workers), "no two examples have the same draws"
    process_pairs = stream(shards, processes - 1, processes, shuffle_buffer=4)
    read = batches(process_pairs, 30, workers)
    assert len(read) == 30
    if processes == 1:
        assert {number for batch in read for number in batch} == set(range(13)), "workers leave nothing out"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("replayed", [0, 1, 5, 12])
def test_stream_replay_ends_where_the_run_was(workers, replayed):
    whole = batches(stream(UNEVEN, shuffle_buffer=4), 18, workers)
    pairs = stream(UNEVEN, shuffle_buffer=4)
    pairs.start_after(replayed, 2)
    assert batches(pairs, 18, workers) == [None] * replayed + whole[replayed:]


@pytest.mark.parametrize("shards", [[range(0, 3), range(3, 6)], [range(0, 6)]], ids=["shards", "rows"])
@pytest.mark.parametrize("process", [0, 1])
def test_stream_of_weighted_sources_is_shared_and_replayed(shards, process):
    others = [range(100, 120), range(120, 140)]

    def pairs():
        mixed = interleave([rows_of(shards), rows_of(others)], [3, 1], seed=2)
        made = StreamedImageTextPairs(mixed, shuffle_buffer=4, keyword_probability=0.0)
        made.assign(process, 2)
        return made

    whole, again = batches(pairs(), 200), pairs()
    again.start_after(150, 2)
    assert batches(again, 200) == [None] * 150 + whole[150:]
    share = sum(number < 100 for batch in whole for number in batch) / 400
    assert share == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 400) ** 0.5)


def test_stream_replay_decodes_no_pictures(monkeypatch):
    pairs = stream(shuffle_buffer=4)
    pairs.start_after(4, 2)
    decoded, decode = [], streams.with_images
    monkeypatch.setattr(streams, "with_images", lambda *row: decoded.append(1) or decode(*row))
    assert list(islice(pairs, 10))[:8] == [None] * 8 and len(decoded) == 2


def test_stream_sample_is_the_same_in_every_process():
    first, second = (stream(UNEVEN, process, 2, shuffle_buffer=4, crop_scale=0.5) for process in range(2))
    samples = [list(pairs.sample(5)) for pairs in (first, second)]
    assert [e["text"] for e in samples[0]] == [e["text"] for e in samples[1]]
    assert sorted(int(e["text"]) for e in samples[0]) == list(range(13))
    assert [e["text"] for e in first.sample(6)] != [e["text"] for e in samples[0]]


def test_stream_skips_rows_without_caption(logged):
    rows = rows_of([range(3)]).map(
        lambda row: {**row, "captions": row["captions"] if row["captions"] != ["1"] else []}
    )
    assert texts(StreamedImageTextPairs(rows, shuffle_buffer=0, keyword_probability=0.0), 4) == [0, 2, 0, 2]
    assert logged.text.count("has no caption: such rows are passed over") == 1


def test_stream_rejects_fewer_rows_than_readers():
    with pytest.raises(ValueError, match="Reader 2 of 3 .* fewer rows than readers"):
        next(iter(stream([range(2)], 2, 3)))


def test_stream_rejects_negative_shuffle_buffer():
    with pytest.raises(ValueError, match="shuffle_buffer=-1"):
        stream(shuffle_buffer=-1)


def test_stream_images_are_rgb():
    grey = {**numbered(0), "image": encoded(Image.new("L", (4, 4), 7))}
    rows = rows_of([range(1)]).map(lambda row: grey)
    example = next(iter(StreamedImageTextPairs(rows, shuffle_buffer=0)))
    assert example["image"].mode == "RGB"
