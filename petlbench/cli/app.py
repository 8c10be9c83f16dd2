"""The command tree, and how an error becomes one or two lines and an exit status."""

from __future__ import annotations

import importlib
import json
import sys
import traceback

import click

from petlbench.core.errors import InputError, PetlbenchError

__all__ = ["app", "run_command"]

# In the order of their use. A command's module, which has its name, is imported when it is called.
_COMMANDS = ["run", "bench", "sweep", "report", "results", "predict", "export", "memory"]
_COMMANDS += ["list", "data", "cache", "doctor"]


class _Commands(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of their use."""
        return _COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"petlbench.cli.commands.{cmd_name}").command
        return command


@click.group(
    cls=_Commands,
    name="petlbench",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Example: petlbench run --method fpt --dataset digits --backbone petlbench_micro --image-size 64",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="petlbench")
def app(debug: bool) -> None:
    """Compare ways to adapt large vision transformers to medical images: accuracy, learnable parameters, memory."""


def run_command(arguments: list[str], command: click.Command = app, name: str = "petlbench") -> int:
    """Run one command, and return the exit status: 0 done, 1 the run failed, 2 the command or its input is wrong."""
    rest = [argument for argument in arguments if argument != "--debug"]
    try:
        status = command.main(rest or ["--help"], prog_name=name, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        failure = _explain(error)
        _report(failure, "--json" in rest)
        return failure.exit_status


def _explain(error: BaseException) -> PetlbenchError:
    """Turn any exception into one that says what to do."""
    if isinstance(error, PetlbenchError):
        return error
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "petlbench"
        return InputError(error.format_message(), hint=f"see {where} --help", kind="usage")
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return PetlbenchError("stopped", kind="interrupted")
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        hint = "nothing half-written is left; once that is mended, the same command goes on from its last epoch"
        return PetlbenchError(f"{error.strerror or error}{where}", hint=hint, kind="io")
    return PetlbenchError(f"{type(error).__name__}: {error}", hint="add --debug to see where", kind="internal")


def _report(error: PetlbenchError, json_wanted: bool) -> None:
    if json_wanted:
        print(json.dumps({"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}))
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
