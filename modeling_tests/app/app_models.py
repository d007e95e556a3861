"""Tiny models as the app loads them, which several of its tests share."""

import tiny
import tiny_vqa
from tiny import pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.app.models import AppModels, Loaded
from transformers_cbvila.app.pictures import Picture, Pictures


def pretrained(**fields):
    return Loaded("tiny", pretraining_model(**fields), tiny_processor())


def answering():
    return Loaded("tiny-vqa", tiny_vqa.tiny_model(), tiny_vqa.tiny_processor())


def retriever(**fields):
    return CBViLARetriever(tiny.build(CBViLAForImageTextRetrieval, **fields), tiny_processor(), "cpu")


def pictures(count=6):
    return Pictures([Picture(row["captions"][0], row["image"], row["captions"]) for row in tiny_rows(count)])


def all_models():
    both = pretrained()
    return AppModels(["tiny", "tiny-vqa"], retriever(), both, both, answering())
