"""Deep Interest Network for click prediction, inside scikit-learn."""
