"""The video predictor APIs of sam2 and transformers, implemented by this project's tracker."""
