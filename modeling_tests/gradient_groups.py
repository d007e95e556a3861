"""Groups of weights of a pretraining model, by the starts of their names, for tables of what trains what."""

GROUPS = {
    "vit": ("cbvila.vision_model.",),
    "text": ("cbvila.text_model.",),
    "fusion": ("cbvila.fusion_model.",),
    "in_proj": ("cbvila.quantizer.table.in_proj.",),
    "out_proj": ("cbvila.quantizer.table.out_proj.",),
    "positions": ("cbvila.visual_queries.position_embeddings",),
    "mask": ("cbvila.visual_queries.mask_token",),
    "codes": ("cbvila.quantizer.table.codes",),
    "keys": ("cbvila.text_key_projection.",),
    "queries": ("cbvila.visual_queries.projection.", "cbvila.visual_queries.layernorm.", "cbvila.visual_queries.cls"),
    "pixel_head": ("objectives.pixel.head.",),
    "mim_head": ("objectives.mim.head.",),
    "bag_head": ("objectives.mim_cls_bag.head.",),
    "patch_mask": ("cbvila.patch_mask_token",),
    "itm_head": ("objectives.itm.head.",),
    "mlm_head": ("objectives.mlm.head.dense.", "objectives.mlm.head.layernorm.", "objectives.mlm.head.decoder.bias"),
    "contrast": ("cbvila.vision_projection.", "cbvila.text_projection.", "cbvila.logit_scale"),
}
