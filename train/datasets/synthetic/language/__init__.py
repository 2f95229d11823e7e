"""Language about synthetic clips: referring expressions, questions, answers and conversations."""
