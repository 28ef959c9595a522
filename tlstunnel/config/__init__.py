"""The configuration: values, the TOML reader, the loader."""
