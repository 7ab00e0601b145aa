"""The ``machport`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from machport.kernel.dialect import DIALECTS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="machport")
def main() -> None:
    """Mach ports for Linux processes."""


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def daemon(arguments: tuple[str, ...]) -> None:
    """Hold the ports and rights of this user, in the foreground.

    One daemon serves a user; it starts by itself at first use.  See 'machport daemon --help'.
    With --upgrade, the daemon that runs is replaced by a new process, and nothing is lost.
    """
    if "--upgrade" in arguments:
        _upgrade([argument for argument in arguments if argument != "--upgrade"])
        return
    from machport.server.__main__ import main as run

    sys.exit(run(list(arguments)))


@click.command("daemon --upgrade", add_help_option=False)
@click.option("--socket", type=click.Path(path_type=Path))
def _upgrade(socket: Path | None) -> None:
    """What ``machport daemon --upgrade`` does; its help is among that of ``machport daemon``."""
    from machport import MachError
    from machport.carrier.endpoint import socket_path
    from machport.client.upgrade import upgrade

    try:
        done = upgrade(socket or socket_path(), chosen=socket is not None)
    except MachError as error:
        raise click.ClickException(error.says) from None
    click.echo(
        f"process {done.new_pid} (machport {done.new_version}) has taken the place of process {done.old_pid} "
        f"(machport {done.old_version}); nobody was served for {done.stall_us / 1000:.1f} ms"
    )


@main.command()
@click.option(
    "--dialect", type=click.Choice(sorted(DIALECTS)), default="manual", show_default=True, help="Whose rules to follow."
)
@click.option("--all", "show_all", is_flag=True, help="Print every divergence, not only the first.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def replay(dialect: str, show_all: bool, files: tuple[Path, ...]) -> None:
    """Replay transcripts of a Mach kernel on an embedded one, and compare every result.

    FILES are text or gzip.  Each scenario is left at its first divergence.  Exits with 0 only if there is none.
    What machport.testing recorded of a user's tasks is replayed, too; it follows the manual's rules.
    """
    from machport.replay.player import play
    from machport.replay.transcript import TranscriptError, read
    from machport.testing.transcript import play as play_world

    scenarios = operations = divergences = 0
    for path in files:
        try:
            for scenario in read(path):
                count, divergence = play_world(scenario) if scenario.is_world else play(scenario, DIALECTS[dialect])
                scenarios += 1
                operations += count
                if divergence is not None:
                    if show_all or not divergences:
                        click.echo(f"{path}, {divergence}")
                    divergences += 1
        except TranscriptError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    click.echo(f"{scenarios} scenarios, {operations} operations, {divergences} divergences")
    sys.exit(1 if divergences else 0)


@main.command()
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kills", type=click.IntRange(0), default=3, show_default=True, help="Servers to kill with -9.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments at which they are killed.")
def demo(directory: Path | None, kills: int, seed: int) -> None:
    """Digest every file of DIRECTORY by a server that is killed, and lose nothing.

    DIRECTORY is the running Python's standard library unless it is given.  The demonstration has a daemon of its own,
    which is gone afterwards.  Exits with 0 only if every file was
    answered exactly once and every digest is right.
    """
    from rich.console import Console

    from machport import MachError
    from machport.demo.report import demonstrate
    from machport.demo.supervisor import ServerFailed

    try:
        right = demonstrate(Console(), directory, kills=kills, seed=seed)
    except (MachError, ServerFailed) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted") from None
    sys.exit(0 if right else 1)
