"""The Gradio pages of the demo and what they show."""
