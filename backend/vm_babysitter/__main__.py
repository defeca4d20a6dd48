"""The entry point: hands the composition root to the command line."""

from vm_babysitter.bootstrap import Standalone
from vm_babysitter.cli.main import run
from vm_babysitter.engine.app import ServeOptions


def main() -> None:
    """Run the command line."""
    run(Standalone, serve=_serve)


def _serve(options: ServeOptions) -> int:
    # Only now: a command that is no daemon does without Flask, SQLite and a scheduler.
    from vm_babysitter.bootstrap_daemon import serve  # noqa: PLC0415

    return serve(options)


if __name__ == "__main__":
    main()
