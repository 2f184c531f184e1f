"""Uses of a fitted model: rankings, predictions, files for servers, updates."""
