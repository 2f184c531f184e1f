"""Training with several processes, and resuming killed trainings."""
