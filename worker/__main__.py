"""`python -m worker`: carry builds, until SIGTERM or SIGINT."""

import logging
import sys

from app.settings import Settings, SettingsError
from worker.main import main

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    logging.getLogger("paramiko").setLevel(logging.ERROR)
    try:
        settings = Settings.from_environment()
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    main(settings)
