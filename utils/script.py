"""The exit status of a script, and its errors as one line."""

import os
import signal
import sys
from collections.abc import Callable

from utils.console import safe_output
from utils.errors import UserError
from utils.memory import out_of_memory
from utils.signals import Interrupted, stop_signals
from utils.text import one_line


def run_script(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with its status; user errors are one line and status 2, signals one line and 128 + it."""
    try:
        with safe_output():
            status = exit_status(main)
    except OSError as error:
        print(f"error: standard output cannot be written ({error.strerror or error})", file=sys.stderr)
        status = 2
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # threads of torch.distributed may abort a normal exit
        os._exit(status)
    sys.exit(status)


def exit_status(main: Callable[[], int | None]) -> int:
    """Call ``main``; errors of the user and signals are said on stderr."""
    try:
        with stop_signals():
            return main() or 0
    except UserError as error:
        print("error:", one_line(str(error)), file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("error: not enough memory; use a smaller network, smaller images or a smaller batch", file=sys.stderr)
        return 2
    except SystemExit as stop:  # of --help and --print_config
        return stop.code if isinstance(stop.code, int) else 0
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signum
    except BrokenPipeError:  # of standard output, whose reader has what it wanted
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
