"""Rows of the tasks: the columns of known data sets, files as people keep them, every kind of bad row by its name."""

import json
import os
from dataclasses import replace

import datasets
import pytest
from PIL import Image
from tiny import half_image

from transformers_cbvila.data.source_rows import load_rows
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.evaluate import EvaluationJob
from transformers_cbvila.tasks.image_layout import split_horizontally
from transformers_cbvila.tasks.protocol_checks import protocol_options
from transformers_cbvila.tasks.reasoning import VisualReasoning
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering
from transformers_cbvila.training.finetune import FinetuningJob

VE = ("entailment", "neutral", "contradiction")
NLVR = ("False", "True")
PICTURES = [half_image(colour, "top") for colour in ("red", "green", "blue", "grey")]


def parquet(folder, columns, features=None, name="rows.parquet"):
    """A Parquet file with the columns and, without others named, a column `image`."""
    columns = {"image": PICTURES[: len(next(iter(columns.values())))], **columns}
    kinds = {key: datasets.Image() for key, values in columns.items() if isinstance(values[0], Image.Image)}
    rows = datasets.Dataset.from_dict(columns)
    for key, kind in {**kinds, **(features or {})}.items():
        rows = rows.cast_column(key, kind)
    rows.to_parquet(folder / name)
    return str(folder / name)


def plain(rows):
    return [record.fields for record in rows.records]


def test_load_task_rows_reads_vqav2_of_the_hub(tmp_path):
    """Ten answers in records; two questions about one picture are put together."""
    answers = [
        [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(given)]
        for given in (["two"] * 8 + ["2", "three"], ["red"] * 10, ["no"] * 10)
    ]
    path = parquet(
        tmp_path,
        {
            "question": ["how many?", "what colour?", "is it?"],
            "answers": answers,
            "multiple_choice_answer": ["two", "red", "no"],
            "image_id": [7, 7, 8],
            "question_id": [70, 71, 80],
        },
    )
    rows = load_task_rows(VisualQuestionAnswering(image_id_column="image_id"), [path], "train")
    assert len(rows) == 2
    assert rows[0]["question"] == ["how many?", "what colour?"]
    assert rows[0]["answer"] == [["two"] * 8 + ["2", "three"], ["red"] * 10]
    assert rows[0]["image"].tobytes() == PICTURES[0].tobytes()
    apart = load_task_rows(VisualQuestionAnswering(answer_column="multiple_choice_answer"), [path], "train")
    assert [fields["answer"] for fields in plain(apart)] == [[["two"]], [["red"]], [["no"]]]


@pytest.mark.parametrize(
    "question, answers, asked, given",
    [
        (["a", "b"], ["x", "y"], ["a", "b"], [["x"], ["y"]]),
        (["a", "b"], [["x", "y"], ["z"]], ["a", "b"], [["x", "y"], ["z"]]),
        (["a"], ["x", "y"], ["a"], [["x", "y"]]),
        (["a"], [["x", "y"]], ["a"], [["x", "y"]]),
        ("a", [{"answer": "x"}, {"answer": ""}, {"answer": None}], ["a"], [["x", "", ""]]),
        ("a", {"answer": ["x", None]}, ["a"], [["x", ""]]),
        ("a", 2, ["a"], [["2"]]),
        ("a", 2.0, ["a"], [["2"]]),
        (["a", "b"], ["x"], None, "2 question.s. and answers to 1; expected an answer, or a list"),
        ("a", [["x"], ["y"]], None, "1 question.s. and answers to 2"),
        (["a", "b"], ["x", " "], None, "it has no answer.* .' '"),
        (["a", " "], ["x", "y"], None, "it has no question.* .*'a', ' '"),
        ([], [], None, "it has no question"),
        ("a", [], None, "it has no answer"),
    ],
)
def test_load_task_rows_reads_answers_of_each_question(question, answers, asked, given, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"image": "a.png", "question": question, "answers": answers}]))
    if asked is None:
        with pytest.raises(ValueError, match=f"Row 0 of .*a.json: .*{given}"):
            load_task_rows(VisualQuestionAnswering(), [str(tmp_path / "a.json")], "train")
        return
    [fields] = plain(load_task_rows(VisualQuestionAnswering(), [str(tmp_path / "a.json")], "train"))
    assert fields == {"question": asked, "answer": given}


def test_load_task_rows_reads_flickr30k_of_the_hub(tmp_path):
    path = parquet(
        tmp_path,
        {
            "caption": [["a", "b", "c", "d", "e"], ["f"], ["g", "h"]],
            "sentids": [["0"], ["1"], ["2"]],
            "split": ["test", "train", "test"],
            "img_id": ["0", "1", "2"],
            "filename": ["0.jpg", "1.jpg", "2.jpg"],
        },
    )
    rows = load_task_rows(ImageTextRetrieval(where=["split=test"]), [path], "test")
    assert rows.column("captions") == [["a", "b", "c", "d", "e"], ["g", "h"]]
    assert rows[1]["image"].tobytes() == PICTURES[2].tobytes()


def test_load_task_rows_reads_coco_with_a_caption_per_row(tmp_path):
    sentences = [{"tokens": [text], "raw": text, "imgid": 1, "sentid": i} for i, text in enumerate("abc")]
    path = parquet(tmp_path, {"sentences": sentences, "cocoid": [9, 9, 4], "sentids": [[0], [1], [2]]})
    rows = load_task_rows(ImageTextRetrieval(image_id_column="cocoid"), [path], "train")
    assert rows.column("captions") == [["a", "b"], ["c"]]
    karpathy = [[{"raw": "a", "sentid": 1}, {"raw": "b", "sentid": 2}], [{"raw": "c", "sentid": 3}]]
    path = parquet(tmp_path, {"sentences": karpathy})
    assert load_task_rows(ImageTextRetrieval(), [path], "train").column("captions") == [["a", "b"], ["c"]]


def test_load_task_rows_maps_entailment_classes_by_name(tmp_path):
    names = datasets.ClassLabel(names=["contradiction", "entailment", "neutral"])  # in another order than ours
    columns = {"hypothesis": ["a", "b", "c"], "premise": ["x"] * 3, "label": [0, 1, 2], "filename": ["1", "2", "3"]}
    rows = load_task_rows(VisualEntailment(), [parquet(tmp_path, columns, {"label": names})], "train", VE)
    assert [(f["text"], f["label"]) for f in plain(rows)] == [("a", VE[2]), ("b", VE[0]), ("c", VE[1])]


def test_load_task_rows_reads_nlvr2_of_the_hub(tmp_path):
    columns = {
        "identifier": ["dev-850-0-1", "dev-850-1-1", "dev-850-0-0"],
        "sentence": ["s", "s", "t"],
        "left_image": PICTURES[:3],
        "right_image": PICTURES[1:4],
        "label": [0, 1, 0],
    }
    path = parquet(tmp_path, columns, {"label": datasets.ClassLabel(names=["True", "False"])})
    settings = VisualReasoning(
        image_column=["left_image", "right_image"], group_column="identifier", group_parts=[0, 1, 3]
    )
    rows = load_task_rows(settings, [path], "train", NLVR)
    assert rows.column("label") == ["True", "False", "True"]
    assert rows.column("group") == ["dev-850-1", "dev-850-1", "dev-850-0"]
    assert [image.tobytes() for image in rows[1]["images"]] == [PICTURES[1].tobytes(), PICTURES[2].tobytes()]
    assert settings.num_images == 2


def test_load_task_rows_splits_nlvr1_pictures(tmp_path):
    picture = Image.new("RGB", (400, 100), "grey")
    for i, colour in enumerate(["red", "green", "blue"]):
        picture.paste(Image.new("RGB", (100, 100), colour), (150 * i, 0))
    path = parquet(tmp_path, {"image": [picture], "sentence": ["s"], "label": [True], "identifier": ["3-1"]})
    settings = VisualReasoning(**protocol_options(VisualReasoning, "nlvr1"))
    row = load_task_rows(settings, [path], "train", NLVR)[0]
    assert row["label"] == "True" and row["group"] == "3", "of the sentence, whatever its picture"
    assert settings.num_images == 3
    for image, colour in zip(row["images"], ["red", "green", "blue"], strict=True):
        assert image.tobytes() == Image.new("RGB", (100, 100), colour).tobytes()


def test_split_horizontally_of_uneven_widths():
    assert [part.size for part in split_horizontally(Image.new("RGB", (10, 4)), 3)] == [(3, 4), (4, 4), (3, 4)]
    with pytest.raises(ValueError, match="2 pixels wide and cannot be cut into 3"):
        split_horizontally(Image.new("RGB", (2, 4)), 3)


def test_image_data_joins_images_by_id(tmp_path):
    images = parquet(tmp_path, {"image_id": ["a", "b"]}, name="images.parquet")
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"image_id": i, "hypothesis": t, "label": "neutral"} for i, t in (("b", "x"), ("a", "y"), ("b", "z"))]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    settings = VisualEntailment(image_id_column="image_id", image_data=[images])
    rows = load_task_rows(settings, [str(pairs)], "train", VE)
    assert [rows[i]["image"].tobytes() for i in range(3)] == [PICTURES[i].tobytes() for i in (1, 0, 1)]
    assert rows.column("text") == ["x", "y", "z"]
    pairs.write_text(json.dumps({"image_id": "c", "hypothesis": "x", "label": "neutral"}))
    with pytest.raises(ValueError, match="Row 0 of .*pairs.jsonl: no image of image_data has the id 'c'"):
        load_task_rows(settings, [str(pairs)], "train", VE)


@pytest.mark.parametrize("ids", [["b.png", "a.png"], ["b", "a"]], ids=["names", "names without endings"])
@pytest.mark.parametrize("folder", ["photos", "val2014"])
def test_image_data_joins_files_of_a_folder_by_name(ids, folder, tmp_path):
    (tmp_path / folder).mkdir()
    for name, picture in zip("ab", PICTURES, strict=False):
        picture.save(tmp_path / folder / f"{name}.png")
    lines = [{"photo": i, "hypothesis": "x", "label": "neutral"} for i in ids]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = VisualEntailment(image_id_column="photo", image_data=[str(tmp_path / folder)])
    rows = load_task_rows(settings, [str(tmp_path / "pairs.jsonl")], "train", VE)
    assert [row["image"].tobytes() for row in rows] == [PICTURES[i].tobytes() for i in (1, 0)]
    settings = replace(settings, image_data_id_column="name")
    with pytest.raises(ValueError, match="image_data .* has no column 'name'"):
        load_task_rows(settings, [str(tmp_path / "pairs.jsonl")], "train", VE)


def test_task_rows_fingerprint_depends_on_pictures(tmp_path):
    def content(pictures):
        path = parquet(tmp_path, {"image": pictures, "caption": ["a", "b"]})
        return load_task_rows(ImageTextRetrieval(), [path], "train").fingerprint()

    assert content(PICTURES[:2]) == content(PICTURES[:2])
    assert len({content(PICTURES[:2]), content(PICTURES[1:3]), content(PICTURES[1::-1])}) == 3
    for name in "ab":
        PICTURES[0].save(tmp_path / f"{name}.png")
    lines = [{"image": f"{name}.png", "caption": "a"} for name in "ab"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    named = load_task_rows(ImageTextRetrieval(), [str(tmp_path / "rows.jsonl")], "train")
    before = named.fingerprint()
    PICTURES[1].save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", ns=(0, 0))
    assert named.fingerprint() != before


def test_image_ids_of_two_sources_are_distinct(tmp_path):
    paths = [
        parquet(tmp_path, {"image": PICTURES[i : i + 2], "caption": texts, "id": [0, 0]}, name=f"{i}.parquet")
        for i, texts in enumerate((["a", "b"], ["c", "d"]))
    ]
    rows = load_task_rows(ImageTextRetrieval(image_id_column="id"), paths, "train")
    assert rows.column("captions") == [["a", "b"], ["c", "d"]]
    assert [row["image"].tobytes() for row in rows] == [PICTURES[0].tobytes(), PICTURES[1].tobytes()]


def captioned(folder, *rows, name="texts.jsonl"):
    (folder / name).write_text("\n".join(json.dumps({"image_id": i, "caption": text}) for i, text in rows))
    return str(folder / name)


def test_image_data_groups_rows_of_two_sources(tmp_path):
    images = parquet(tmp_path, {"image_id": [0, 1]}, name="images.parquet")
    texts = [captioned(tmp_path, (0, "a"), (1, "b"), name="1.jsonl"), captioned(tmp_path, (0, "c"), name="2.jsonl")]
    settings = ImageTextRetrieval(image_id_column="image_id", image_data=[images])
    assert load_task_rows(settings, texts, "train").column("captions") == [["a", "c"], ["b"]]


def test_image_data_ids_must_be_unique(tmp_path):
    twice = {"image": [PICTURES[0], PICTURES[0], PICTURES[1]], "image_id": [0, 0, 1]}
    images = parquet(tmp_path, twice, name="images.parquet")
    other = parquet(tmp_path, {"image": PICTURES[2:3], "image_id": [1]}, name="other.parquet")
    texts = captioned(tmp_path, (0, "a"), (1, "b"))

    def load(*sources):
        settings = ImageTextRetrieval(image_id_column="image_id", image_data=list(sources))
        return load_task_rows(settings, [texts], "train")

    assert len(load(images)) == len(load(images, images)) == 2, "the same picture twice is one"
    with pytest.raises(ValueError, match="two pictures with the id '1': row 2 of .*images.* row 0 of .*other.*Leave"):
        load(images, other)
    for name in ("a", "b"):
        PICTURES[0].save(tmp_path / f"{name}.png")
    lines = [{"image": f"{name}.png", "image_id": 5} for name in "aab"]
    (tmp_path / "paths.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="'5': row 0 of .* row 2 of "):
        load(str(tmp_path / "paths.jsonl"))


def test_image_id_missing_makes_one_bad_row(tmp_path):
    for name in "abc":
        PICTURES[0].save(tmp_path / f"{name}.png")
    (tmp_path / "rows.csv").write_text("image,image_id,caption\na.png,7,x\nb.png,,y\nc.png,7,z\n")  # as 7.0, NaN, 7.0
    settings = {"image_id_column": "image_id"}
    with pytest.raises(ValueError, match="Row 1 of .*rows.csv: it has no image id"):
        load_task_rows(ImageTextRetrieval(**settings), [str(tmp_path / "rows.csv")], "train")
    rows = load_task_rows(ImageTextRetrieval(**settings, skip_bad_rows=True), [str(tmp_path / "rows.csv")], "train")
    assert plain(rows) == [{"captions": ["x", "z"], "image_id": "7"}]


def test_load_task_rows_reads_csv_folders_and_several_sources(picture_folder, tmp_path):
    Image.new("RGB", (5, 4), "red").save(tmp_path / "red.png")
    (tmp_path / "pairs.csv").write_text("photo,text,label\nred.png,it is red,ENTAILMENT\nred.png,白い犬,neutral\n")
    settings = VisualEntailment(image_column=["photo"])
    rows = load_task_rows(settings, [str(tmp_path / "pairs.csv")] * 2, "train", VE)
    assert len(rows) == 4 and rows[3]["text"] == "白い犬" and rows[2]["label"] == "entailment"
    assert rows[1]["image"].size == (5, 4)
    assert len(load_task_rows(ImageTextRetrieval(), [picture_folder], "train")) == 8
    part = load_rows(str(tmp_path / "pairs.csv"), "train[:1]")
    assert part["text"] == ["it is red"]


def test_load_task_rows_groups_easy_vqa_questions_by_image():
    rows = load_task_rows(VisualQuestionAnswering(), ["easy-vqa"], "test")
    assert len(rows) == 1000 and sum(map(len, rows.column("question"))) == 9673
    assert all(len(answers) == 1 for answers in rows[0]["answer"])
    assert len(load_task_rows(VisualQuestionAnswering(image_id_column="image_id"), ["easy-vqa"], "test")) == 1000
    assert len(load_task_rows(ImageTextRetrieval(), ["easy-vqa"], "test")) == 1000
    with pytest.raises(
        ValueError, match="easy-vqa has no rows for entailment; it has rows for pretraining, retrieval, vqa"
    ):
        load_task_rows(VisualEntailment(), ["easy-vqa"], "test", VE)


BAD = {
    "its image cannot be read": {"image": "broken.png"},
    "its image cannot be read .FileNotFound": {"image": "nowhere.png"},
    "it has no image": {"image": None},
    "it has no text": {"text": " \u200b "},
    "its label is 'maybe'; the classes are entailment, neutral, contradiction": {"label": "maybe"},
    "it has no label .None": {"label": None},
    "it has no label .' '": {"label": " "},
}


@pytest.fixture
def bad_file(tmp_path):
    """A file with a good row, a bad one, and another good one."""
    Image.new("RGB", (5, 4), "red").save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])

    def write(change):
        good = {"image": "good.png", "text": "x", "label": "neutral"}
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, [good, {**good, **change}, good])))
        return str(tmp_path / "rows.jsonl")

    return write


@pytest.mark.parametrize("reason, change", BAD.items())
def test_load_task_rows_names_or_skips_bad_rows(reason, change, bad_file):
    path = bad_file(change)
    with pytest.raises(ValueError, match=f"Row 1 of {path}: {reason}.*skip_bad_rows"):
        list(load_task_rows(VisualEntailment(), [path], "train", VE))
    rows = load_task_rows(VisualEntailment(skip_bad_rows=True), [path], "train", VE)
    assert len(list(rows)) == 2 and len(rows.skipped) == 1
    assert f"Left out 1 bad row(s):\n  Row 1 of {path}" in rows.summary_of_skipped()


def test_load_task_rows_rejects_data_of_bad_rows_only(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "nowhere.png", "text": "x", "label": "neutral"}))
    with pytest.raises(ValueError, match="no row that can be used.*Left out 1 bad row"):
        load_task_rows(VisualEntailment(skip_bad_rows=True), [str(tmp_path / "rows.jsonl")], "train", VE)


def test_class_names_are_needed_for_numeric_labels(tmp_path):
    path = parquet(tmp_path, {"sentence": ["a", "b"], "label": [1, 0]})
    with pytest.raises(ValueError, match="numbers and no names for them.*--class_names entailment neutral"):
        load_task_rows(VisualEntailment(), [path], "train", VE)
    for classes in (NLVR, NLVR[::-1]):  # of a model, in any order
        assert load_task_rows(VisualReasoning(), [path], "train", classes).column("label") == ["True", "False"]
    rows = load_task_rows(VisualReasoning(class_names=["True", "False"]), [path], "train", NLVR)
    assert rows.column("label") == ["False", "True"]


def test_load_task_rows_rejects_labels_out_of_true_and_false(tmp_path):
    path = parquet(tmp_path, {"sentence": ["a", "b"], "label": [1, 7]})
    with pytest.raises(ValueError, match="Row 1 of .*: its label is 'class 7'; the classes are False, True"):
        load_task_rows(VisualReasoning(), [path], "train", NLVR)


def test_label_missing_makes_one_bad_row(tmp_path):
    (tmp_path / "rows.csv").write_text("image,text,label\na.png,x,1\nb.png,y,\nc.png,z,0\n")  # read as 1.0, NaN, 0.0
    settings = {"class_names": ["neutral", "entailment"]}
    with pytest.raises(ValueError, match="Row 1 of .*rows.csv: it has no label"):
        load_task_rows(VisualEntailment(**settings), [str(tmp_path / "rows.csv")], "train", VE)
    for name in "ac":
        PICTURES[0].save(tmp_path / f"{name}.png")
    rows = load_task_rows(VisualEntailment(**settings, skip_bad_rows=True), [str(tmp_path / "rows.csv")], "train", VE)
    assert rows.column("label") == ["entailment", "neutral"] and len(rows.skipped) == 1


def test_load_task_rows_reads_snli_ve_of_its_authors(tmp_path):
    line = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "neutral", "image": "a.png"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(line))
    rows = load_task_rows(VisualEntailment(), [str(tmp_path / "dev.jsonl")], "train", VE)
    assert plain(rows) == [{"text": "hypothesis", "label": "neutral"}]


@pytest.mark.parametrize(
    "settings, message",
    [
        (ImageTextRetrieval(), "no column called captions, caption, text.*set caption_column to one of image, words"),
        (ImageTextRetrieval(caption_column="titel"), "no column 'titel'; set caption_column to one of image, words"),
        (ImageTextRetrieval(caption_column="words", image_column=["photo"]), "no column 'photo'; set image_column"),
        (ImageTextRetrieval(caption_column="words", where=["part=1"]), "no column 'part'"),
        (VisualQuestionAnswering(), "no column called question"),
        (VisualEntailment(text_column="words"), "no column called label"),
    ],
)
def test_load_task_rows_names_missing_columns(settings, message, tmp_path):
    path = parquet(tmp_path, {"words": ["a", "b"]})
    with pytest.raises(ValueError, match=message):
        load_task_rows(settings, [path], "train", VE)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ImageTextRetrieval(image_column=["a", "b"]), "has one image per row"),
        (lambda: ImageTextRetrieval(image_column=[]), "image_column is empty"),
        (lambda: ImageTextRetrieval(where=["split"]), "COLUMN=VALUE"),
        (lambda: ImageTextRetrieval(image_data=["x"]), "joined by image_id_column"),
        (lambda: ImageTextRetrieval(rerank_k=-1), "rerank_k=-1"),
        (lambda: VisualQuestionAnswering(answer_k=-1), "answer_k=-1"),
        (lambda: VisualQuestionAnswering(answer_k=7), "answer_k=7 is for answer_list, which is not given. Set both"),
        (
            lambda: ImageTextRetrieval(image_data_split="a"),
            "image_data_split='a' is for image_data, which is not given",
        ),
        (lambda: ImageTextRetrieval(image_data_id_column="a"), "image_data_id_column='a' is for image_data"),
        (lambda: VisualReasoning(group_parts=[0]), r"group_parts=\[0\] is for group_column, which is not given"),
        (lambda: VisualReasoning(image_gap=0.1), "image_gap=0.1 lies between the images of a picture, .* not split"),
        (lambda: EvaluationJob("m", ["d"], train_split="a"), "train_split='a' is for train_data, which is not given"),
        (lambda: EvaluationJob("m", ["d"], train_where=["a=b"]), "train_where=.* is for train_data"),
        (lambda: FinetuningJob("m", ["d"], eval_split="a"), "eval_split='a' is for eval_data, which is not given"),
        (lambda: FinetuningJob("m", ["d"], eval_where=["a=b"]), "eval_where=.* is for eval_data"),
        (lambda: VisualReasoning(image_parts=0), "image_parts=0"),
        (lambda: VisualReasoning(image_parts=3, image_gap=0.5), "leaves no room"),
    ],
)
def test_task_settings_reject_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_load_rows_passes_the_revision_of_a_hub_data_set(monkeypatch):
    called = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: called.append((args, options)))
    load_rows("user/name@refs/convert/parquet", "test")
    load_rows("user/name", "train")
    assert called[0] == (("user/name",), {"revision": "refs/convert/parquet", "split": "test", "streaming": False})
    assert called[1] == (("user/name",), {"revision": None, "split": "train", "streaming": False})


def test_image_data_joins_snli_ve_with_flickr30k(tmp_path):
    texts = [
        {
            "Flickr30K_ID": "22",
            "pairID": "22.jpg#0r1e",
            "gold_label": "entailment",
            "sentence1": "x",
            "sentence2": "a",
        },
        {"Flickr30K_ID": "11", "pairID": "11.jpg#1r1n", "gold_label": "neutral", "sentence1": "x", "sentence2": "b"},
    ]
    (tmp_path / "snli_ve_test.jsonl").write_text("\n".join(map(json.dumps, texts)))
    photos = parquet(tmp_path, {"filename": ["11.jpg", "22.jpg"], "caption": [["p"], ["q"]]}, name="flickr30k.parquet")
    settings = VisualEntailment(
        image_data=[photos],
        image_data_split="test",  # all of nlphuji/flickr30k is in it
        image_id_column="Flickr30K_ID",
        image_data_id_column="filename",
    )
    rows = load_task_rows(settings, [str(tmp_path / "snli_ve_test.jsonl")], "train", VE)
    assert [(f["text"], f["label"]) for f in plain(rows)] == [("a", VE[0]), ("b", VE[1])]
    assert [row["image"].tobytes() for row in rows] == [PICTURES[1].tobytes(), PICTURES[0].tobytes()]


def test_load_task_rows_reads_negative_captions_and_puts_them_together(tmp_path):
    columns = {"caption": ["a dog left of a cat", "a dog", "a bird"], "image_id": [1, 1, 2]}
    negatives = ["a cat left of a dog", "", "a fish"]
    path = parquet(tmp_path, {**columns, "negative_caption": negatives})
    assert [
        fields["negative_captions"] for fields in plain(load_task_rows(ImageTextRetrieval(), [path], "train"))
    ] == [
        ["a cat left of a dog"],
        [],
        ["a fish"],
    ]
    rows = load_task_rows(ImageTextRetrieval(image_id_column="image_id"), [path], "train")
    assert plain(rows)[0]["captions"] == ["a dog left of a cat", "a dog"]
    assert plain(rows)[0]["negative_captions"] == ["a cat left of a dog"]
    assert (
        "negative_captions"
        not in plain(
            load_task_rows(ImageTextRetrieval(), [parquet(tmp_path, columns, name="without.parquet")], "train")
        )[0]
    )
