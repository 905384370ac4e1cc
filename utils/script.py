"""The exit status of a script, and its errors as one line."""

import os
import sys
from collections.abc import Callable

from utils.errors import UserError
from utils.memory import out_of_memory
from utils.signals import Interrupted
from utils.text import one_line


def run_script(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with its status; user errors are one line and status 2, signals one line and 128 + it."""
    try:
        status = main()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # threads of torch.distributed may abort a normal exit
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status or 0)
        sys.exit(status)
    except UserError as error:
        print("error:", one_line(str(error)), file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("error: not enough memory; use a smaller network, smaller images or a smaller batch", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
