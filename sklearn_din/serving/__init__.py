"""What a fitted model is used for: ranking candidates, files for servers."""
