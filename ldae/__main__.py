"""`python -m ldae` is the `ldae` command."""

from ldae.cli import main

if __name__ == "__main__":
    main()
