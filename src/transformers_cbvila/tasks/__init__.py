"""Downstream tasks, one file each: their options, rows, collators, training sets, measures, protocols and cards."""
