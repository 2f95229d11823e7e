"""An OpenAI-compatible server: chat completions about a video or an image, with masks."""
