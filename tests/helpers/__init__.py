"""What several tests share: tiny models, drawn clips, reference implementations."""
