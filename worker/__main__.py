"""`python -m worker` carries builds until it gets SIGTERM or SIGINT."""

import sys

from app.settings import Settings, SettingsError
from worker.documents.key import check
from worker.main import main
from worker.process import logs

if __name__ == "__main__":
    logs.configure()
    try:
        settings = Settings.from_environment()
        if settings.signing_key is not None:
            check(settings.signing_key)
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    main(settings)
