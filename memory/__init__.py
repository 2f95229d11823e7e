"""Object memory: the memory bank, its masks, and their injection into a prompt. Independent of any model."""
