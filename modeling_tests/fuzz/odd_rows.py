"""Sources of rows as people have them: the columns that a task wants, with values that it does not expect."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from odd_pictures import data_url, picture, whole

WORDS = ["a", "red", "green", "blue", "circle", "square", "is", "it", "?", "what", "yes", "no", "left", "right"]


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))


def odd_text(draw: random.Random) -> Any:
    return draw.choice(
        [
            None,
            "",
            "   ",
            "\n\t",
            7,
            1.5,
            float("nan"),
            True,
            [],
            [None],
            ["a", ""],
            ["a", 3],
            {"a": "b"},
            "null",
            "NA",
        ]
        + ["红色的圆", "é" * 300, "word " * 500, "\u202e\u0000x", "😀", [["nested"]], "</td><script>", sentence(draw)]
    )


def odd_label(draw: random.Random) -> Any:
    return draw.choice([None, "", "-", "maybe", "ENTAILMENT", -1, 3, 99, 0.5, float("nan"), True, [1], "0", {"a": 1}])


def odd_image(draw: random.Random, folder: Path) -> Any:
    path = folder / f"picture{draw.randrange(10**6)}.png"
    path.write_bytes(picture(draw))
    return draw.choice(
        [
            None,
            "",
            3,
            [],
            str(path),
            path.name,
            data_url(path.read_bytes()),
            "nowhere.png",
            "x" * 3000,
            "bilder\\a.png",
        ]
        + ["data:image/png;base64,????", {"path": str(path)}, {"bytes": None, "path": None}, [str(path)]]
    )


def good_row(draw: random.Random, folder: Path) -> dict[str, Any]:
    """A row that every task could take."""
    path = folder / f"good{draw.randrange(10**6)}.png"
    path.write_bytes(whole(draw))
    label = draw.choice(["entailment", "neutral", "contradiction"])
    return {
        "image": str(path),
        "text": sentence(draw),
        "question": sentence(draw) + " ?",
        "answers": draw.choice(["red", "blue", "yes"]),
        "hypothesis": sentence(draw),
        "label": label,
        "truth": draw.choice(["true", "false"]),
    }


def spoil(draw: random.Random, row: dict[str, Any], folder: Path) -> None:
    """Puts an odd value into one column of a row, or takes the column away."""
    column = draw.choice(list(row))
    if draw.random() < 0.2:
        del row[column]
    elif column == "image":
        row[column] = odd_image(draw, folder)
    else:
        row[column] = odd_label(draw) if column in ("label", "truth") else odd_text(draw)


def as_json_lines(rows: list[dict], folder: Path, draw: random.Random) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps(row) for row in rows]
    if draw.random() < 0.15:
        lines[draw.randrange(len(lines))] = draw.choice(["{", "[1, 2]", "3", "", "null"])
    path.write_text("\n".join(lines))
    return path


def as_csv(rows: list[dict], folder: Path, draw: random.Random) -> Path:
    path = folder / "rows.csv"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    encoding = draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"])
    with path.open("w", newline="", encoding=encoding, errors="replace") as file:
        writer = csv.DictWriter(file, columns, delimiter=draw.choice([",", ",", ";", "\t"]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(rows: list[dict], folder: Path, draw: random.Random) -> Path:
    """With the picture's bytes where it is a file; columns of mixed types, which Parquet does not have, as text."""
    path = folder / "rows.parquet"
    table = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if name == "image":
            values = [_image_record(value) for value in values]
        try:
            table[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            table[name] = pa.array([None if value is None else str(value) for value in values])
    pq.write_table(pa.table(table), path)
    if draw.random() < 0.1:
        path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
    return path


def _image_record(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str) and len(value) < 300 and Path(value).is_file():
        return {"bytes": Path(value).read_bytes(), "path": Path(value).name}
    return None


def as_image_folder(rows: list[dict], folder: Path, draw: random.Random) -> Path:
    lines = []
    for row in rows:
        row = dict(row)
        image = row.pop("image", None)
        row["file_name"] = Path(image).name if isinstance(image, str) and len(image) < 300 else image
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


WRITERS: list[Callable[[list[dict], Path, random.Random], Path]] = [
    *(as_json_lines, as_csv, as_parquet, as_image_folder)
]


def source(draw: random.Random, folder: Path, spoilt: bool = True, count: int = 6) -> str:
    """The path of a new source below `folder`, of good rows, or with some that are spoilt."""
    folder = folder / f"source{draw.randrange(10**9)}"
    folder.mkdir(exist_ok=True)
    rows = [good_row(draw, folder) for _ in range(count)]
    if not spoilt:
        return str(as_image_folder(rows, folder, draw))
    for row in draw.sample(rows, draw.choice([1, 1, 2, count])):
        spoil(draw, row, folder)
    writer = draw.choice(WRITERS)
    return str(writer(rows[: draw.choice([count, count, 1])] if draw.random() < 0.95 else [{}], folder, draw))
