"""One small sans-I/O file per protocol that upgrades a plaintext conversation to TLS."""
