"""UniPixel in the auto classes of transformers: AutoConfig, AutoModel, AutoProcessor."""
