"""Models behind endpoints with OpenAI's protocol of chat completions."""
