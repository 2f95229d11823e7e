"""The web demo: a Gradio page and an API over user sessions."""
