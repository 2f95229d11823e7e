"""Files of results: masks, annotations, videos with masks or effects, and archives of sessions."""
