"""The ``machport`` command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machport.kernel.dialect import DIALECTS

if TYPE_CHECKING:
    from machport.client.oversight import Oversight


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
    if "--upgrade" in arguments and not {"-h", "--help"}.intersection(arguments):
        others = [argument for argument in arguments if argument != "--upgrade"]
        try:
            _upgrade.main(others, prog_name="machport daemon --upgrade", standalone_mode=False)
        except click.NoSuchOption as error:
            says = f"{error.message} A daemon that runs keeps the options it was started with; only --socket goes here."
            raise click.UsageError(says, error.ctx) from None
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
    What machport.testing recorded of a user's tasks is replayed, too, and what 'machport trace' wrote; both follow the
    manual's rules.
    """
    from machport.replay.player import play
    from machport.replay.transcript import TranscriptError, read
    from machport.testing.transcript import play as play_world
    from machport.tracing.replaying import play as play_trace

    scenarios = operations = divergences = 0
    for path in files:
        try:
            for scenario in read(path):
                if scenario.is_trace:
                    count, divergence = play_trace(scenario)
                elif scenario.is_world:
                    count, divergence = play_world(scenario)
                else:
                    count, divergence = play(scenario, DIALECTS[dialect])
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


@contextlib.contextmanager
def _overseeing() -> Iterator[Oversight]:
    """A look at the daemon that runs; one sentence and exit code 1 if none does."""
    from machport.abi.errors import MachError
    from machport.client.oversight import Oversight

    try:
        with Oversight() as oversight:
            yield oversight
    except MachError as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        # Whoever read has seen enough.
        sys.stdout = None
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all there is.")
@click.option("--follow", is_flag=True, help="Go on with those to come, until interrupted.")
@click.option("-n", "most", type=click.IntRange(0), default=20, show_default=True, help="The last so many.")
@click.option("--label", default="*", help="Only tasks whose label matches this pattern, such as 'worker*'.")
def deaths(as_json: bool, follow: bool, most: int, label: str) -> None:
    """Who ended, how and when, what was lost, and who was told; the newest last.

    The daemon remembers the last 1,024, and gives the last 256 of them.
    """
    from machport.cli.overseeing import show_deaths

    with _overseeing() as oversight, contextlib.suppress(KeyboardInterrupt):
        show_deaths(oversight, as_json=as_json, follow=follow, most=most, label=label)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--rights", "pid", type=int, metavar="PID", help="What the process holds instead, and who receives there."
)
def ps(as_json: bool, pid: int | None) -> None:
    """The tasks that live, and what they hold; this command's own is not among them."""
    from machport.cli.overseeing import show_rights, show_tasks

    with _overseeing() as oversight:
        if pid is None:
            show_tasks(oversight, as_json=as_json)
        elif not show_rights(oversight, pid, as_json=as_json):
            raise click.ClickException(f"process {pid} has no task here")


@main.command()
@click.option(
    "--serve", "port", type=click.IntRange(0, 65535), help="Offer them by HTTP on 127.0.0.1 instead; 0: any port."
)
def metrics(port: int | None) -> None:
    """The daemon's numbers as OpenMetrics text."""
    from machport.cli.metrics import as_text, ask, serve

    with _overseeing() as oversight:
        if port is None:
            click.echo(as_text(ask(oversight)), nl=False)
            return
    try:
        serve(port, lambda port: click.echo(f"http://127.0.0.1:{port}/metrics"))
    except OSError as error:
        raise click.ClickException(f"cannot serve on port {port}: {error.strerror}") from None
    except KeyboardInterrupt:
        pass


@main.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the transcript there, not to stdout."
)
@click.option("--chrome", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON for Perfetto, or Chrome.")
@click.option("--seconds", type=click.FloatRange(0), help="For so long; otherwise until interrupted.")
@click.option("--task", "tasks", multiple=True, help="Only tasks whose label matches this pattern.")
@click.option("--pid", type=int, default=0, help="Only the tasks of this process.")
@click.option("--call", "calls", multiple=True, help="Only this call, such as mach_msg.")
@click.option("--port", "ports", multiple=True, help="Only calls on ports whose label matches this pattern.")
def trace(
    out: Path | None,
    chrome: Path | None,
    seconds: float | None,
    tasks: tuple[str, ...],
    pid: int,
    calls: tuple[str, ...],
    ports: tuple[str, ...],
) -> None:
    """Write down what the daemon does from now on: calls, messages and notifications.

    The transcript is played again by 'machport replay', unless it is filtered, or had a reader that was too slow.
    """
    from machport.abi.errors import MachError
    from machport.cli.trace import record

    with _overseeing() as oversight:
        try:
            with contextlib.ExitStack() as files:
                where = None if chrome is not None and out is None else sys.stdout
                if out is not None:
                    where = files.enter_context(out.open("w"))
                events = None if chrome is None else files.enter_context(chrome.open("w"))
                filters = {"tasks": tasks, "pid": pid, "calls": calls, "ports": ports}
                recorded = record(oversight, where, events, seconds, **filters)  # type: ignore[arg-type]
        except (BrokenPipeError, MachError):
            raise
        except OSError as error:
            what = f"cannot write {error.filename}" if error.filename is not None else "the trace cannot be written"
            raise click.ClickException(f"{what}: {error.strerror}") from None
    click.echo(f"{recorded.steps} steps" + (f", {recorded.lost} lost" if recorded.lost else ""), err=True)
    if recorded.ended:
        raise click.ClickException(
            f"the trace ended early, because {recorded.ended}; what was written until then stays"
        )
