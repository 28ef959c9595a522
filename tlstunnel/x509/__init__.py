"""What the tunnel (`tls`) and the certificate commands (`pki`) must read alike, so that they read it in one place."""
