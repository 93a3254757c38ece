"""Run a command and write its peak resident memory in bytes to FILE: peak.py FILE COMMAND...

Linux counts what a process had in memory before it became the command, so it
has to be started by a small one, not by the test.
"""

import os
import sys
from pathlib import Path

file, *command = sys.argv[1:]
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
Path(file).write_text(str(usage.ru_maxrss * 1024), encoding="ascii")
sys.exit(os.waitstatus_to_exitcode(status))
