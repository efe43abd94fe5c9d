"""The OpenAPI document as it is committed. After a change of the API that was meant, write it anew:

python -m tests.integration.app.snapshot
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

SNAPSHOT = Path(__file__).with_name("openapi.json")


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """As the code makes it, without a database, a bucket or an AWS account."""
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    settings = Settings.model_validate(
        {"database_url": "postgresql://nowhere/none", "aws_endpoint_url": "http://127.0.0.1:1"}
    )
    return create_app(settings).openapi()


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
