"""The control plane: accept, set up, dial, drain. trio lives here."""
