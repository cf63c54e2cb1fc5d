"""A worker that ends as a loader does that was killed for its memory."""

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
