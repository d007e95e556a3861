"""Names of the files of an export, beside its graphs, tokenizer, processor and config.json."""

DESCRIPTION = "export.json"  # inputs and outputs of each graph, and how images and texts become inputs
FORMAT = 1  # of the description; readers refuse another
PARITY = "parity.json"  # how far the graphs are from the model
