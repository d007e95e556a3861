"""The demo: a report over fine-tuning and evaluation on easy-VQA."""
