"""`python -m unipixel`: the command, as `unipixel`."""

import sys

from unipixel.cli import main

if __name__ == "__main__":
    sys.exit(main())
