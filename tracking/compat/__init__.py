"""The video predictor APIs of sam2 and transformers over this project's tracker."""
