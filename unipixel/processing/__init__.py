"""From videos, prompts and questions to model inputs, and from generated text back to objects."""
