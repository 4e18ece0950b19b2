"""polyfed's own logger. Where its lines go is decided by what runs polyfed: see server/run_log.py."""

import logging

logger = logging.getLogger("polyfed")
log = logger.log
