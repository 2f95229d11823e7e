"""What the demo stores on disk: saved sessions, and the folder of the server."""
