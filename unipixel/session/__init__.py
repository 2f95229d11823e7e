"""Sessions: one video or stream, its object memory, and the conversation about it."""
