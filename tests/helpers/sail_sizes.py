"""Sizes of a Pixel-SAIL that trains within seconds."""

TINY_SAIL_SIZES = """
[vocabulary]
size = 400
num_samples = 20
[transformer]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 2048
rms_norm_eps = 1e-6
tie_word_embeddings = true
[image]
patch_size = 12
num_upsample_blocks = 2
mask_channels = 16
max_side = 96
"""
