"""Label maps: classes of patches, views of both, and where maps come from."""

import io
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PATCH, PATCHES, half_image, tiny_labelled_rows, tiny_processor, tiny_rows
from transformers import (
    MaskFormerConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    set_seed,
)

from transformers_cbvila.data.builtin_sources import classes_of_objects
from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.image_views import ImageViews
from transformers_cbvila.data.label_maps import LabelMaps, drawn_label_map, patch_classes, read_label_map
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.data.mixing import concatenate
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.scenes.export import export_scenes
from transformers_cbvila.data.scenes.label_classes import kind_map
from transformers_cbvila.data.scenes.options import SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.scenes.words import KINDS, Kind
from transformers_cbvila.data.segmentation import Segmenter
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.streams import StreamedImageTextPairs

SCENES = "scenes[rows=12]"
ROWS = SceneRows(SceneOptions(rows=12), "train")


def as_map(values):
    return Image.fromarray(np.array(values, dtype=np.int32))


def values(label_map):
    return np.asarray(label_map)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


# Classes of patches


def test_patch_classes_by_hand():
    """The majority; of equals the smallest class; unknown only if it is more than any class."""
    label_map = as_map(
        [
            [1, 1, 2, 2, -1, -1],
            [1, 5, 0, 0, -1, 7],
            [3, -1, -1, 4, 9, 9],
            [-1, 3, -1, -1, 9, 9],
        ]
    )
    assert patch_classes(label_map, 2, 3, 2).tolist() == [1, 0, -1, 3, -1, 9]


def test_patch_classes_resizes_to_the_model():
    label_map = as_map(np.kron([[0, 1], [2, -1]], np.ones((50, 30))))
    assert patch_classes(label_map, 4, 4, 8).view(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, -1, -1]] * 2
    assert patch_classes(None, 2, 2, 8).tolist() == [-1] * 4
    assert patch_classes(label_map, 2, 2, 8).dtype == torch.long


# Reading


@pytest.mark.parametrize(
    "value",
    [
        np.array([[0, 3], [255, 1]], dtype=np.uint8),
        Image.fromarray(np.array([[0, 3], [255, 1]], dtype=np.uint8)),
        png(np.array([[0, 3], [255, 1]], dtype=np.uint8)),
        {"path": None, "bytes": png(np.array([[0, 3], [255, 1]], dtype=np.uint8))},
    ],
    ids=["array", "image", "bytes", "record"],
)
def test_read_label_map_of_8_bits(value):
    assert values(read_label_map(value)).tolist() == [[0, 3], [-1, 1]]
    assert values(read_label_map(value, [7, 8, 9, 5])).tolist() == [[7, 5], [-1, 8]]
    assert values(read_label_map(value, [7, 8])).tolist() == [[7, -1], [-1, 8]]


def test_read_label_map_of_16_bits_and_palettes(tmp_path):
    Image.fromarray(np.array([[0, 255], [40000, 1]], dtype=np.uint16)).save(tmp_path / "wide.png")
    assert values(read_label_map(str(tmp_path / "wide.png"))).tolist() == [[0, 255], [40000, 1]]
    palette = Image.fromarray(np.array([[0, 2]], dtype=np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    assert values(read_label_map(palette)).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (half_image("red", "left"), "its mode is RGB; expected one channel"),
        (np.zeros((2, 2, 3), dtype=np.uint8), r"shape \(2, 2, 3\)"),
        (np.zeros((2, 2)), "of float64; expected whole numbers"),
        (b"no image", "cannot be read"),
        ("gone.png", "'gone.png' cannot be read"),
    ],
    ids=["colours", "channels", "floats", "bytes", "path"],
)
def test_read_label_map_says_what_is_wrong(value, message):
    with pytest.raises(ValueError, match=message):
        read_label_map(value)


def test_label_maps_name_the_row():
    row = {"image": half_image("red", "left"), "label_map": b"no image", "origin": "Row 3 of x"}
    with pytest.raises(ValueError, match="Row 3 of x: its label map"):
        LabelMaps()(row, 0)


def test_label_maps_have_the_size_of_the_image():
    row = {"image": half_image("red", "left"), "label_map": np.array([[1, 2]], dtype=np.uint8)}
    found = LabelMaps()(row, 0)
    assert found.size == row["image"].size and values(found)[:, 0].tolist() == [1] * 32
    assert LabelMaps()({"image": row["image"]}, 0) is None
    assert LabelMaps()({"image": row["image"], "label_map": None}, 0) is None


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_label_share_is_of_the_images(share):
    maps, row = LabelMaps(share=share), {"image": Image.new("RGB", (1, 1)), "label_map": np.ones((1, 1), dtype=int)}
    ids = torch.randint(2**62, (2000,), generator=generator_for(0)).tolist()
    known = [maps(row, number) is not None for number in ids]
    assert sum(known) / 2000 == pytest.approx(share, abs=0.03)
    assert known == [maps(row, number) is not None for number in ids]


def test_label_share_out_of_range():
    with pytest.raises(ValueError, match="label_share=1.5 must be a share from 0 to 1"):
        LabelMaps(share=1.5)


# Views

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def coloured(side=40):
    """An image of four colours, and its map."""
    numbers = np.kron([[0, 1], [2, 3]], np.ones((side // 2, side // 2), dtype=np.int32)).astype(np.int32)
    return Image.fromarray(np.array(COLOURS, dtype=np.uint8)[numbers]), Image.fromarray(numbers)


@pytest.mark.parametrize(
    "options",
    [
        {"crop_scale": 0.3},
        {"crop_scale": 0.5, "max_crop_scale": 3.0},
        {"flip": True},
        {"rotation": 45},
        {"distortions": 3},
        {"crop_scale": 0.5, "flip": True, "rotation": 20, "color_jitter": 0.05, "distortions": 2},
    ],
    ids=str,
)
def test_views_of_label_maps_are_those_of_images(options):
    image, labels = coloured()
    views, right, known = ImageViews(**options), [], []
    for seed in range(30):
        view, moved = views.draw_with_labels(image, labels, generator_for(seed))
        assert view.tobytes() == views.draw(image, generator_for(seed)).tobytes(), "maps change no draw"
        assert moved.size == view.size and moved.mode == "I"
        pixels, found = np.asarray(view).astype(int), values(moved)
        nearest = np.abs(pixels[:, :, None] - np.array(COLOURS)).sum(-1).argmin(-1)
        right.append((nearest == found)[found >= 0].mean())
        known.append((found >= 0).mean())
    assert np.mean(right) > 0.93 and np.mean(known) > 0.4


def test_two_views_leave_the_first_one_as_it_is():
    options = {"crop_scale": 0.5, "flip": True}
    plain = ImageTextPairs(tiny_rows(), **options)
    double = ImageTextPairs(tiny_rows(), two_views=True, **options)
    for row in range(8):
        one, two = plain[row], double[row]
        assert one["image"].tobytes() == two["image"].tobytes() and one["text"] == two["text"]
        assert one["generator"].get_state().equal(two["generator"].get_state())
    assert any(double[row]["image"].tobytes() != double[row]["other_image"].tobytes() for row in range(8))
    assert double[3]["other_image"].tobytes() == double[3]["other_image"].tobytes()
    assert "label_map" not in double[0] and "other_image" not in plain[0]


# Collator


def test_collator_makes_classes_of_patches():
    collate = CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16)
    pairs = ImageTextPairs(tiny_labelled_rows(), label_maps=LabelMaps(), two_views=True, flip=True)
    batch = collate([pairs[row] for row in range(8)])
    assert batch["token_classes"].shape == batch["other_token_classes"].shape == (8, PATCHES)
    assert batch["other_pixel_values"].shape == batch["pixel_values"].shape
    colours = batch["pixel_values"].unflatten(2, (4, 8)).unflatten(4, (4, 8)).mean((3, 5))  # of each patch
    lightest = batch["pixel_values"].amax((0, 2, 3)).view(1, 3, 1, 1)
    white = ((colours - lightest).abs() < 1e-3).all(1).flatten(1)
    grey = torch.tensor([row["captions"][0].endswith("grey") for row in tiny_labelled_rows()])
    assert torch.equal((batch["token_classes"] == 0)[~grey], white[~grey])
    plain = collate([ImageTextPairs(tiny_labelled_rows(), flip=True)[row] for row in range(8)])
    assert all(torch.equal(plain[name], batch[name]) for name in plain)
    assert not {"token_classes", "other_pixel_values", "masked_words"} & set(plain)


def test_collator_of_images_without_classes():
    collate = CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16)
    pairs = ImageTextPairs(tiny_rows(), label_maps=LabelMaps())
    assert (collate([pairs[0], pairs[1]])["token_classes"] == -1).all()


# Scenes


def test_kinds_of_scenes_are_classes():
    objects = [{"colour": "red", "shape": "circle"}, {"colour": "black", "shape": "diamond"}]
    assert classes_of_objects(objects) == [0, 1, len(KINDS)] and len(KINDS) == 49
    for others in ([], ["cat"], [{"name": "cat"}], [{"colour": "x", "shape": "y"}]):
        assert classes_of_objects(others) == []


def test_scenes_have_a_map_of_kinds_for_each_image():
    pairs = load_pairs(SCENES, with_labels=True)
    for number in range(12):
        row, scene = ROWS[number], ROWS.scenes(number)["image"]
        expected = np.zeros_like(row["label_map"], dtype=np.int32)
        for i, item in enumerate(row["objects"], start=1):
            expected[row["label_map"] == i] = 1 + KINDS.index(Kind(item["colour"], item["shape"]))
        found = read_label_map(pairs[number]["label_map"], pairs[number]["label_classes"])
        assert (values(found) == expected).all() and len(np.unique(expected)) > 2
        assert (kind_map(scene, 64) == expected).all()


def test_screens_of_scenes_are_of_no_class():
    rows = SceneRows(SceneOptions(rows=40), "train", "entailment")
    number = next(n for n in range(40) if rows.scenes(n)["image"].screen is not None)
    table = f"scenes://train/entailment/{number}/image.kinds?size=64&objects=3&fewest=2&style=flat&seed=0"
    found = values(read_label_map({"path": table, "bytes": None}))
    screen = rows.scenes(number)["image"].screen
    assert (found[screen.top : screen.bottom, screen.left : screen.right] == -1).all()


def test_exported_scenes_have_the_same_classes(tmp_path):
    export_scenes(ROWS, tmp_path)
    drawn, stored = (load_pairs(source, with_labels=True) for source in (SCENES, str(tmp_path)))
    for number in range(12):
        maps = [read_label_map(rows[number]["label_map"], rows[number]["label_classes"]) for rows in (drawn, stored)]
        assert (values(maps[0]) == values(maps[1])).all()
    assert stored[0]["label_classes"][0] == 0 and drawn[0]["label_classes"] == []


def test_only_images_of_built_in_sources_have_drawn_maps():
    assert drawn_label_map({"path": "cat.png", "bytes": None}) is None and drawn_label_map(b"x") is None
    assert drawn_label_map("https://example.org/cat.png") is None
    assert drawn_label_map("easy-vqa://x") is None
    assert drawn_label_map("scenes://train/vqa/1/image?size=64")["path"] == "scenes://train/vqa/1/image.kinds?size=64"


# Sources


@pytest.fixture
def folder(tmp_path):
    """Parquet with two columns of maps."""
    datasets = pytest.importorskip("datasets")
    maps = [np.full((32, 32), number, dtype=np.uint8) for number in range(4)]
    columns = {
        "image": [half_image("red", "left")] * 4,
        "caption": ["left half red"] * 4,
        "label_map": [Image.fromarray(array) for array in maps],
        "stuff": [Image.fromarray(array + 10) for array in maps],
    }
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    return str(tmp_path)


@pytest.mark.parametrize(("column", "first"), [(None, 0), ("stuff", 10)])
def test_label_map_column_of_files(folder, column, first):
    rows = concatenate([load_pairs(folder, with_labels=True, label_map_column=column)])
    assert [values(LabelMaps()(row, 0)).max() for row in map(ImageTextPairs(rows).row, range(4))] == [
        first + i for i in range(4)
    ]


def test_sources_with_and_without_maps_mix(folder):
    rows = concatenate([load_pairs(source, with_labels=True) for source in (folder, SCENES, "easy-vqa")])
    found = [row["label_map"] is None for row in rows.select([0, 5, len(rows) - 1])]
    assert found == [False, False, True]


def test_label_map_column_that_is_not_there(folder):
    with pytest.raises(ValueError, match=r"no column 'classes'; set label_map_column to one of"):
        load_pairs(folder, with_labels=True, label_map_column="classes")
    assert "label_map" not in load_pairs(folder).column_names


@pytest.mark.parametrize("source", [SCENES, "folder"])
def test_streams_have_label_maps(source, folder):
    stream = load_pair_stream(folder if source == "folder" else source, with_labels=True)
    options = {"label_maps": LabelMaps(), "two_views": True, "crop_scale": 0.7}
    examples = iter(StreamedImageTextPairs(stream, shuffle_buffer=0, **options))
    found = [values(next(examples)["label_map"]).max() for _ in range(4)]
    if source == "folder":
        assert found == [0, 1, 2, 3]
    else:
        assert max(found) > 3
    assert next(examples)["other_label_map"].mode == "I"


# Segmentation models


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """The folder of a semantic segmentation model with random weights."""
    folder = str(tmp_path_factory.mktemp("segformer"))
    set_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3],
        strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=5,
        id2label=dict(enumerate(["sky", "sea", "sand", "sun", "cat"])),
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    try:
        SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    except ImportError as error:  # on transformers 5.18, where either of its backends needs torchvision
        pytest.skip(str(error))
    return folder


def test_segmenter_returns_classes_of_the_model(segformer):
    segmenter, image = Segmenter(segformer), half_image("red", "left", 40)
    found = segmenter(image)
    assert found.size == image.size and set(np.unique(values(found))) <= set(range(5))
    model, processor = segmenter.load().model, segmenter.load().image_processor
    with torch.no_grad():
        outputs = model(**processor(image, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 40)])
    assert (values(found) == expected.numpy()).all()
    again = pickle.loads(pickle.dumps(segmenter))
    assert again._pipeline is None and (values(again(image)) == values(found)).all()


def test_label_maps_of_a_segmenter_take_no_column(segformer):
    row = {"image": half_image("red", "left"), "label_map": b"no image"}
    assert set(np.unique(values(LabelMaps(Segmenter(segformer))(row, 0)))) <= set(range(5))


def test_overlapping_segments_by_score():
    segmenter = Segmenter("none")
    left, right = (np.zeros((2, 4), dtype=np.uint8) for _ in range(2))
    left[:, :3], right[:, 2:] = 255, 255

    def pipeline(image):
        masks = [("cat", 0.9, left), ("dog", 0.5, right)]
        return [{"label": n, "score": s, "mask": Image.fromarray(m)} for n, s, m in masks]

    pipeline.model = SimpleNamespace(config=SimpleNamespace(id2label={2: "dog", 4: "cat"}))
    segmenter._pipeline = pipeline
    assert values(segmenter(Image.new("RGB", (4, 2)))).tolist() == [[4, 4, 4, 2]] * 2


@pytest.mark.parametrize("name", ["gone", "folder"])
def test_segmenter_that_cannot_be_loaded(name, tmp_path):
    if name == "folder":
        MaskFormerConfig().save_pretrained(tmp_path)
        name = str(tmp_path)
    with pytest.raises(ValueError, match="label_model=.* cannot be loaded .*segmentation model"):
        Segmenter(name).load()
