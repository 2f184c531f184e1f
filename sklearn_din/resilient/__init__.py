"""Trainings of several processes, and trainings that go on after they were killed."""
