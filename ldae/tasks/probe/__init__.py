"""Linear probes on codes and on their rivals: targets, folds, models, results."""
