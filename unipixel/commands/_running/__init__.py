"""What several commands do: jobs, progress and the writing of results."""
