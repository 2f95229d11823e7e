"""Questions about many clips: lists of clips, rows of results that survive a kill, and the workers."""
