"""The command tree, and how an error becomes one or two lines and an exit status."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any, cast

import typer

from petlbench.cli import data, doctor, listing, predict, run
from petlbench.errors import InputError, PetlbenchError

__all__ = ["app", "run_command"]

# typer brings its own copy of click in newer releases, so its base class is found by way of a public one.
_UsageError = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError")

app = typer.Typer(
    name="petlbench",
    help="Compare ways to adapt large vision transformers to medical images: accuracy, learnable parameters, memory.",
    epilog="Example: petlbench run --method fpt --dataset digits --backbone vit_tiny_patch16_224 --weights none",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", epilog=run.EPILOG)(run.run)
app.command("predict", epilog=predict.EPILOG)(predict.predict)
app.command("list", epilog=listing.EPILOG)(listing.list_)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(data.app, name="data")


@app.callback()
def _about(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    pass


def run_command(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: What stands behind ``petlbench``.

    Returns:
        The exit status: 0 done, 1 the run failed, 2 the command or its input is wrong.
    """
    rest = [argument for argument in arguments if argument != "--debug"]
    try:
        status = app(rest, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except typer.Exit as error:
        return int(error.exit_code)
    except BrokenPipeError:
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        told = _explain(error, rest)
        _report(told, "--json" in rest)
        return told.exit_status


def _explain(error: BaseException, arguments: list[str]) -> PetlbenchError:
    """Turn any exception into one that says what to do."""
    if isinstance(error, PetlbenchError):
        return error
    if isinstance(error, _UsageError):
        return InputError(
            str(cast("Any", error).format_message()), hint=f"see petlbench {_named(arguments)}--help", kind="usage"
        )
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return PetlbenchError("stopped", kind="interrupted")
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        hint = "nothing half-written is left; once there is room, the same command goes on from its last epoch"
        return PetlbenchError(f"{error.strerror or error}{where}", hint=hint, kind="io")
    return PetlbenchError(f"{type(error).__name__}: {error}", hint="add --debug to see where", kind="internal")


def _named(arguments: list[str]) -> str:
    command = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    return f"{command} " if command in {"run", "predict", "list", "doctor", "data"} else ""


def _report(error: PetlbenchError, json_wanted: bool) -> None:
    if json_wanted:
        print(json.dumps({"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}))
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
