"""The Gradio pages of the demo."""
