"""Folder of an `evaluate` metric script; `evaluate.load` takes this folder's path."""
