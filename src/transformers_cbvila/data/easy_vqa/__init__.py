"""easy-VQA: questions and answers about images of one coloured shape, and the captions that follow from them."""

from .loading import load_easy_vqa, load_easy_vqa_captions

__all__ = ["load_easy_vqa", "load_easy_vqa_captions"]
