"""The data plane: move bytes between two ends. No trio, no logging, no metrics."""
