"""`python -m tlstunnel` is the tlstunnel command."""

from tlstunnel.cli.entry import main

if __name__ == "__main__":
    main()
