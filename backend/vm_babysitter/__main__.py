"""The entry point: hands the composition root to the command line."""

from vm_babysitter.bootstrap import Standalone
from vm_babysitter.cli.main import run
from vm_babysitter.engine.app import ServeOptions
from vm_babysitter.views import PartView


def main() -> None:
    """Run the command line."""
    run(Standalone, serve=_serve, self_check=_self_check)


def _serve(options: ServeOptions) -> int:
    # Only now: a command that is no daemon does without Flask, SQLite and a scheduler.
    from vm_babysitter.bootstrap_daemon import serve  # noqa: PLC0415

    return serve(options)


def _self_check(options: ServeOptions) -> tuple[PartView, ...]:
    from vm_babysitter.adapters.self_check import self_check  # noqa: PLC0415

    return self_check(options)


if __name__ == "__main__":
    main()
