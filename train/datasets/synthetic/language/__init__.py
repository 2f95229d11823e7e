"""Language about drawn clips: references to objects, questions, answers, conversations."""
