"""Start the command line with ``python -m ruvector``."""

from ruvector.cli import main

if __name__ == "__main__":
    main()
