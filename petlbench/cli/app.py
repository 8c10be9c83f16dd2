"""The command tree, and how an error becomes one or two lines and an exit status."""

from __future__ import annotations

import errno
import importlib
import json
import traceback

import click

from petlbench.cli.output import say
from petlbench.core.errors import InputError, PetlbenchError

# In the order of their use. A command's module, which has its name, is imported when it is called.
_COMMANDS = ["run", "bench", "sweep", "recommend", "report", "results", "predict", "evaluate", "export", "memory"]
_COMMANDS += ["pack", "verify-pack", "board", "list", "data", "cache", "doctor", "completion"]

# What click keeps as it is begins so; and the most characters of a sentence.
_AS_IT_IS, _SENTENCE = "\b\n", 200

# What the system says of a path that cannot be used, as against a disk that is full or fails.
_BAD_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EROFS)


class _Commands(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"petlbench.cli.commands.{cmd_name.replace('-', '_')}").command
        _keep_example(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every command with the whole sentence that says what it does."""
        commands = {name: command for name in _COMMANDS if (command := self.get_command(ctx, name)) is not None}
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(_SENTENCE)) for name, each in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that arguments begin with, and look at the rest of them."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:  # a shell completes what is not whole yet
            _refuse_twice(click.Context(command, ctx, name), rest)
        return name, command, rest


def _keep_example(command: click.Command) -> None:
    """Keep the example below a help text on one line, so that it can be copied."""
    if command.epilog and not command.epilog.startswith(_AS_IT_IS):
        command.epilog = _AS_IT_IS + command.epilog
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _keep_example(each)


def _refuse_twice(context: click.Context, arguments: list[str]) -> None:
    """Refuse an option that takes one value and is given two: click would take the last one without a word."""
    _, rest, order = context.command.make_parser(context).parse_args(list(arguments))
    for option in order:
        takes_one = isinstance(option, click.Option) and not (option.multiple or option.count)
        is_mark = isinstance(option, click.Option) and option.is_flag and not option.secondary_opts
        if takes_one and not is_mark and order.count(option) > 1:
            raise click.UsageError(f"{option.opts[0]} is given twice", context)
    if isinstance(context.command, click.Group) and rest:
        command = context.command.get_command(context, rest[0])
        if command is not None:
            _refuse_twice(click.Context(command, context, rest[0]), rest[1:])


@click.group(
    cls=_Commands,
    name="petlbench",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=_AS_IT_IS
    + "Example: petlbench run --method fpt --dataset digits --backbone petlbench_micro --image-size 64",
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
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            say(traceback.format_exc(), err=True)
        failure = _explain(error, " ".join(rest[:1]))
        if "--json" in rest:
            document = {"kind": failure.kind, "message": failure.message, "hint": failure.hint}
            print(json.dumps({"error": document}))
        else:
            say(f"error: {failure.message}", err=True)
            if failure.hint:
                say(f"  hint: {failure.hint}", err=True)
        return failure.exit_status


def _explain(error: BaseException, command: str) -> PetlbenchError:
    if isinstance(error, PetlbenchError):
        return error
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "petlbench"
        return InputError(error.format_message(), hint=f"see {where} --help", kind="usage")
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return PetlbenchError("stopped", kind="interrupted")
    if isinstance(error, OSError):
        message = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        if error.errno in _BAD_PATHS:
            return InputError(message, hint="give a path that can be read and written", kind="bad_path")
        hint = "nothing half-written is left; once that is mended, the same command "
        hint += "goes on from its last epoch" if command in ("run", "bench", "sweep") else "does it anew"
        return PetlbenchError(message, hint=hint, kind="io")
    return PetlbenchError(f"{type(error).__name__}: {error}", hint="add --debug to see where", kind="internal")
