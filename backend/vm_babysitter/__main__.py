"""The entry point: hands the composition root to the command line."""

from vm_babysitter.bootstrap import Standalone
from vm_babysitter.cli.main import run


def main() -> None:
    """Run the command line."""
    run(Standalone)


if __name__ == "__main__":
    main()
