"""`python -m tlstunnel` is the tlstunnel command."""

from tlstunnel.cli.app import main

if __name__ == "__main__":
    main()
