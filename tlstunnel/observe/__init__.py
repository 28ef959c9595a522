"""What the daemon shows: board, metrics, log, admin endpoint."""
