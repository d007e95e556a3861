"""Help texts of the options with which several commands read the same data; imports nothing slow."""

from .builtin_sources import BUILTIN_SOURCES
from .column_names import CAPTION_COLUMNS, LABEL_COLUMNS, column_help

SOURCES = (
    "Folders (images with a metadata.jsonl or .csv, or with a .txt each; Parquet files; written by save_to_disk), "
    "Parquet, JSON Lines, CSV, TSV or WebDataset .tar files, Hub ids (user/name@revision), or built-in data "
    f"({', '.join(BUILTIN_SOURCES)})"
)
TRAIN_SPLIT = "Split of the training data."
MEASURED_SPLIT = "Split of the data; default: test, else validation, else the only one."
IMAGE_COLUMN = "Column with the images."
CAPTIONS = "Column with a caption or a list of captions per image"
CAPTION_COLUMN = column_help(CAPTIONS, CAPTION_COLUMNS)
LABEL_COLUMN = column_help("Column with a label or a list of labels or attributes per image", LABEL_COLUMNS)
SKIP_BAD_ROWS = (
    "Leave out rows with a missing or broken image or without a caption, and count them; every image is read once "
    "beforehand. Without, such a row is an error that names it."
)
