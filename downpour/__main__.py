"""`python -m downpour COMMAND [flags]`: the same as the command `downpour`."""

import sys

from downpour.deploy.cli import main

if __name__ == "__main__":
    sys.exit(main())
