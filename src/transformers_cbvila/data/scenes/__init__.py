"""Drawn scenes of coloured shapes whose truth is known: the built-in source `scenes`.

ShapeWorld (Kuhnle and Copestake, 2017) has captions of shapes that are true or false, whose relations are ours, but no
questions, hidden objects or galleries; CLEVR (Johnson et al., 2017) has files of rendered solids with long chains of
reasoning, while ours are flat, asked in short and drawn when they are read; easy-VQA has one shape in an image, and no
question about which colour belongs to which shape. Here the words alone never tell an answer or a label, and
`test_compositional` has combinations that training never shows.

`scene_rows.py` has the rows, over `rows.py`, which says what each task's rows are made of; `sampling.py` draws scenes,
`layout.py` places their objects, and `source.py` is the source, over `tables.py`.
"""
