"""The command line: `semalign --help`. Every command is a thin call of a flow or of the warehouse."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import typer

from flows import (
    cli_analyses,
    cli_batches,
    cli_checks,
    cli_explain,
    cli_inspect,
    cli_models,
    cli_operations,
    cli_pipeline,
    cli_profiles,
    cli_promotion,
    cli_start,
    cli_transfer,
    cli_tuning,
)
from flows.cli_options import CONFIG, JSON, ROOT, SET, Options
from flows.cli_output import command_line, last_word
from flows.errors import InterruptedRunError, SecretInSettingsError

app = typer.Typer(
    name="semalign",
    help="Language-model profiles, embeddings and collaborative filtering, aligned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def common(ctx: typer.Context, config: CONFIG = None, root: ROOT = None, set_: SET = None, json: JSON = False) -> None:
    """Language-model profiles, embeddings and collaborative filtering, aligned."""
    ctx.obj = Options(config, root, tuple(set_ or ()), json)


_PARTS = (
    cli_start,
    cli_pipeline,
    cli_models,
    cli_tuning,
    cli_analyses,
    cli_inspect,
    cli_promotion,
    cli_profiles,
    cli_batches,
    cli_checks,
    cli_explain,
    cli_transfer,
    cli_operations,
)
for part in _PARTS:
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Exit code of one command.

    0 done, 2 what the caller wrote, 3 rows quarantined, 4 stopped, 5 locked, 6 bytes not to be trusted, 1 a bug.
    """
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="semalign", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; there is nobody to tell
        return 0
    except Exception as error:
        return _refuse(error, arguments)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise InterruptedRunError(signal.Signals(number).name)


def _refuse(error: Exception, arguments: Sequence[str]) -> int:
    """The exit code of an error, after its sentence was printed with the command to go on."""
    if isinstance(error, typer.Abort):
        error = InterruptedRunError("SIGINT")
    elif isinstance(error, OSError) and not hasattr(error, "exit_code"):
        from warehouse import disk_fault

        error = disk_fault(error) or error
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's own refusals: an unknown command or option
        last_word(f"{format_message()} Help: semalign --help")
        return 2
    code = getattr(error, "exit_code", None)
    again = command_line(arguments, hide_values=isinstance(error, SecretInSettingsError))
    if not isinstance(code, int):
        traceback.print_exception(error)
        last_word(f"a bug: {type(error).__name__}: {error}. Finished stages are kept; try again: {again}")
        return 1
    endings = {2: "mend it, then", 4: "resumable:", 5: "when it has ended:", 6: "then"}
    last_word(f"{error}; {endings.get(code, 'again:')} {again}")
    return code


if __name__ == "__main__":
    main()
