"""The process plane: sockets, workers, signals, privileges. No event loop."""
