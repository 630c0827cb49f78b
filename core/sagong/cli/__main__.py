"""`python -m sagong.cli`."""

import sys

from sagong.cli import main

if __name__ == "__main__":
    sys.exit(main())
