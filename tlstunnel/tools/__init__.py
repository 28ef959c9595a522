"""The wing of tools: what people otherwise need openssl(1) for, and help to choose. The daemon needs none of it.

Imports: each says for itself.
Touches: each says for itself.
"""
